//! What the state machine asks its runtime to act on.

use std::time::Instant;

use crate::streams::StreamId;
use crate::{EndReason, Metadata, StreamError};

/// Something the runtime must act on; see [`Connection::poll_event`](crate::Connection::poll_event).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The tunnel is negotiated: calls can be opened (caller) or may come (handler).
    Ready,
    /// Handler: a call has come.
    Opened {
        /// Its stream.
        id: StreamId,
        /// The method, always with its leading slash.
        method: String,
        /// The request headers, as sent.
        headers: Metadata,
        /// When the call expires, when it carries a deadline. The state machine
        /// enforces it.
        deadline: Option<Instant>,
    },
    /// There is something new to [`read`](crate::RecvStream::read), the end included. Comes once, until a
    /// read finds nothing.
    Readable(StreamId),
    /// The stream takes data again, or its sending half has died. Comes once for each time a
    /// writer was told to wait, and at the death.
    Writable(StreamId),
    /// Handler: the call is over before it was closed; drop what serves it, and say when it is gone
    /// by [`handler_done`](crate::Connection::handler_done). Its stream is gone.
    Cancelled {
        /// The stream that was.
        id: StreamId,
        /// Why.
        error: StreamError,
    },
    /// The peer is draining. Caller: new calls are refused, calls up to `last` go on. Handler:
    /// no new calls are to be expected, those taken go on.
    GoingAway {
        /// The last stream the handler serves, or has been asked to serve.
        last: i64,
    },
    /// The tunnel has ended. The last event.
    Ended(EndReason),
}
