//! Events: the state machine's output for its runtime.

use std::time::Instant;

use crate::streams::StreamId;
use crate::{EndReason, Metadata, Notice, StreamError, StreamFault};

/// Something the runtime must act on; see [`Connection::poll_event`](crate::Connection::poll_event).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The tunnel is negotiated: calls can be opened (caller) or may arrive (handler).
    Ready,
    /// Handler: the peer routes calls to this tunnel; see [`Offer::ready`](crate::Offer::ready).
    PeerReady,
    /// Handler: a new call.
    #[non_exhaustive]
    Opened {
        /// Its stream.
        id: StreamId,
        /// The method, always with its leading slash.
        method: String,
        /// The request headers, as sent.
        headers: Metadata,
        /// The call's deadline, if it has one. The state machine enforces it.
        deadline: Option<Instant>,
    },
    /// The stream has something to [`read`](crate::RecvStream::read): data or its end. Comes once,
    /// until a read returns [`Read::Pending`](crate::Read::Pending).
    Readable(StreamId),
    /// The stream is writable again, or its sending half has ended. Comes once for each time that
    /// [`is_writable`](crate::SendStream::is_writable) returned `false`, and at the end.
    Writable(StreamId),
    /// Handler: the call ended before it was closed. Its stream is gone. Stop its handler, then
    /// call [`handler_done`](crate::Connection::handler_done).
    #[non_exhaustive]
    Cancelled {
        /// The stream that has gone.
        id: StreamId,
        /// Why.
        error: StreamError,
    },
    /// The peer drains the tunnel. Caller: new calls are refused, calls up to `last` continue.
    /// Handler: no new calls will come, open calls continue.
    GoingAway {
        /// The last stream that the handler serves; `None` if it serves none.
        last: Option<StreamId>,
    },
    /// The peer has told something about tunnels to come. Comes before the [`GoingAway`](Self::GoingAway) that
    /// it belongs to.
    Notice(Notice),
    /// Something worth a log line, and nothing to act on.
    Note(Note),
    /// The tunnel has ended. The last event.
    Ended(EndReason),
}

/// Something that a runtime may want to log. The state machine does not log by itself: it may run
/// under a lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// A fault of the peer ended a stream.
    #[error("the peer's mistake ends stream {}: {fault}", id.0)]
    PeerFault {
        /// The stream that has gone.
        id: StreamId,
        /// What the peer did.
        fault: StreamFault,
    },
    /// A status over the metadata limit lost its details and the end of its message.
    #[error("a status of {size} bytes was cut to the limit of {limit}")]
    StatusCut {
        /// The status, in bytes.
        size: usize,
        /// [`max_metadata_size`](crate::ConfigBuilder::max_metadata_size), in bytes.
        limit: usize,
    },
    /// Trailers over the metadata limit were left out.
    #[error("trailers of {size} bytes, over the limit of {limit}, were left out")]
    TrailersDropped {
        /// The trailers, in bytes.
        size: usize,
        /// [`max_metadata_size`](crate::ConfigBuilder::max_metadata_size), in bytes.
        limit: usize,
    },
}
