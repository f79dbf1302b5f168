//! The states of the two halves of a stream.

/// What has become of the half that sends.
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
/// A caller's half ends with `half_close`, a handler's with `close_stream`; a
/// handler's stream leaves the table when that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// Takes messages.
    Open,
    /// The application has finished; its data may still be queued.
    Finishing,
    /// Nothing more will be sent.
    Done,
}

/// What has become of the half that receives.
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
    /// More may come.
    Open,
    /// The end was received, or the stream failed.
    Ended,
}
