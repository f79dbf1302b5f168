//! The states of the two halves of a stream.

/// The state of the sending half.
///
/// ```text
///                 finish / close
///     ┌──────┐   (queued behind     ┌───────────┐  last frame   ┌──────┐
///     │ Open │──────its own data)──▶│ Finishing │────written───▶│ Done │
///     └──────┘                      └───────────┘               └──────┘
///         │                               │                        ▲
///         └───────────────────────────────┴────────────────────────┘
///           caller: close_stream received; either side: cancel,
///           reset, deadline, fault, end of the tunnel (queued data
///           is dropped)
/// ```
///
/// A caller's half ends with `half_close`, a handler's with `close_stream`; a handler's stream
/// leaves the table when its end was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// The application may write messages.
    Open,
    /// The application has finished; its data may still be queued.
    Finishing,
    /// Nothing more will be sent.
    Done,
}

/// The state of the receiving half.
///
/// ```text
///                half_close (handler),
///     ┌──────┐   close_stream (caller)   ┌───────┐  read to its end   ┌─────────┐
///     │ Open │──────────────────────────▶│ Ended │───or dropped──────▶│ removed │
///     └──────┘                           └───────┘                    └─────────┘
///         │      fault, deadline,            ▲          (caller only: a handler's
///         └──────end of the tunnel───────────┘           stream lives until closed)
///                (unread data is dropped)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecvState {
    /// More data may arrive.
    Open,
    /// The end was received, or the stream failed.
    Ended,
}
