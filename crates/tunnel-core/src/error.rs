//! Errors: what failed, which side caused it, and the gRPC code that goes on the wire.
//!
//! There are three kinds. [`ConnectionError`] ends a tunnel. [`StreamError`] ends one stream.
//! [`OpenError`] and [`WriteError`] are returned by operations that were not possible.
//! [`StreamFault::code`] and [`ConnectionError::code`] map errors to gRPC codes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::frame::framing::FrameError;
use crate::{Code, Printable, Report, Side, Status, StreamId, TransportError};

/// Which side ended a stream or a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Initiator {
    /// The local application: it cancelled, closed, or let its deadline pass.
    User,
    /// This library, by one of its limits or timers.
    Library,
    /// The peer, or the network between.
    Remote,
}

/// A limit, by name. [`ConfigBuilder`](crate::config::ConfigBuilder) has a setter for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// Too many streams open at once.
    #[error("too many concurrent streams")]
    ConcurrentStreams,
    /// A message larger than allowed.
    #[error("a message larger than max_message_size")]
    MessageSize,
    /// Metadata larger than allowed.
    #[error("metadata larger than max_metadata_size")]
    MetadataSize,
    /// Too many unread bytes on the tunnel.
    #[error("too many unread bytes on the tunnel")]
    BufferedBytes,
    /// Too many unread empty messages on the tunnel.
    #[error("too many unread empty messages")]
    UnreadEmptyMessages,
    /// Too many useless frames.
    #[error("too many frames that say nothing")]
    EmptyFrames,
    /// Too many frames for streams that have ended.
    #[error("too many frames for streams that have ended")]
    StrayFrames,
    /// The peer opened calls and did not read their refusals for too long.
    #[error("the peer opens calls and does not read their refusals")]
    PendingRefusals,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 8] = [
        Self::ConcurrentStreams,
        Self::MessageSize,
        Self::MetadataSize,
        Self::BufferedBytes,
        Self::UnreadEmptyMessages,
        Self::EmptyFrames,
        Self::StrayFrames,
        Self::PendingRefusals,
    ];

    /// The name of its setting, as in [`ConfigBuilder`](crate::config::ConfigBuilder).
    pub fn name(self) -> &'static str {
        match self {
            Self::ConcurrentStreams => "max_concurrent_streams",
            Self::MessageSize => "max_message_size",
            Self::MetadataSize => "max_metadata_size",
            Self::BufferedBytes => "max_buffered_bytes",
            Self::UnreadEmptyMessages => "max_unread_empty_messages",
            Self::EmptyFrames => "max_empty_frames",
            Self::StrayFrames => "max_stray_frames",
            Self::PendingRefusals => "max_pending_refusals",
        }
    }
}

/// Why a tunnel ended with an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer sent a frame for a stream that was never opened.
    #[error("protocol error: frame for stream {id}, which was never opened (highest: {})", .highest.map_or(-1, StreamId::value))]
    UnknownStream {
        /// The stream the frame names.
        id: StreamId,
        /// The highest stream opened so far.
        highest: Option<StreamId>,
    },
    /// The peer opened a stream whose id is not above all earlier ones.
    #[error("protocol error: stream {id} opened after stream {highest}: ids must increase")]
    IdNotIncreasing {
        /// The stream opened.
        id: StreamId,
        /// The highest stream opened so far.
        highest: StreamId,
    },
    /// The peer opened a stream with a negative id.
    #[error("protocol error: stream id {id} is negative")]
    NegativeId {
        /// The stream opened.
        id: StreamId,
    },
    /// The handler's first frame was not settings.
    #[error("protocol error: settings must come first, but a frame for stream {id} did")]
    SettingsMissing {
        /// The stream of the frame that came.
        id: StreamId,
    },
    /// Settings on a stream of a call, or from a side that has none to send.
    #[error("protocol error: unexpected settings on stream {id}")]
    UnexpectedSettings {
        /// The stream of the frame.
        id: StreamId,
    },
    /// A frame of a kind that only this side may send.
    #[error("protocol error: stream {id}: a frame of a kind that only the {0} sends", side_name(*.side))]
    WrongDirection {
        /// The stream of the frame.
        id: StreamId,
        /// The side that may send the kind.
        side: Side,
    },
    /// The two ends have no protocol revision in common.
    #[error("no protocol revision in common: the peer speaks {theirs:?}")]
    NoCommonRevision {
        /// The revisions that the peer listed, as numbers of the wire.
        theirs: Vec<i32>,
    },
    /// The handler's settings did not arrive in time.
    #[error("the peer sent no settings in time")]
    SettingsTimeout,
    /// The peer went over a limit that protects the whole tunnel.
    #[error("{0}")]
    Limit(Limit),
    /// Received bytes are not frames.
    #[error("undecodable frame")]
    Undecodable(#[from] FrameError),
    /// The peer offers heartbeats, and nothing was received from it for this time.
    #[error("nothing was heard from the peer for {0:?}")]
    PeerSilent(std::time::Duration),
    /// The transport under the tunnel broke.
    #[error("the tunnel's connection was lost")]
    TransportLost(#[source] TransportError),
    /// The peer accepted the outer call and ended it with a status that is not OK, which is the
    /// reason for the end of the tunnel.
    #[error("the peer ended the tunnel: {}: {}", .0.code, Printable(&.0.message))]
    EndedByPeer(Status),
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Caller => "caller",
        Side::Handler => "handler",
    }
}

impl ConnectionError {
    /// Who ended the tunnel: this library by a limit or a timer, or the peer by an error.
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Limit(_) | Self::SettingsTimeout => Initiator::Library,
            _ => Initiator::Remote,
        }
    }

    /// The gRPC code that the peer sees as the status of the outer call.
    pub fn code(&self) -> Code {
        match self {
            Self::Limit(_) => Code::ResourceExhausted,
            Self::TransportLost(_) | Self::EndedByPeer(_) | Self::PeerSilent(_) => {
                Code::Unavailable
            }
            Self::SettingsTimeout => Code::DeadlineExceeded,
            Self::NoCommonRevision { .. } => Code::FailedPrecondition,
            _ => Code::Internal,
        }
    }
}

/// How a tunnel ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// The local application closed it.
    #[error("the tunnel was closed")]
    Closed,
    /// The local application closed it with a reason. The peer gets the reason if this end accepted
    /// the outer call.
    #[error("the tunnel was closed: {}: {}", .0.code, Printable(&.0.message))]
    ClosedWith(Status),
    /// The local application drained it: every call finished, or the drain's deadline passed.
    #[error("the tunnel was drained")]
    Drained,
    /// The peer drained it, and no call was left.
    #[error("the peer drained the tunnel")]
    PeerDrained,
    /// The peer ended it cleanly, or the peer's drain reached its deadline with calls left.
    #[error("the peer closed the tunnel")]
    PeerClosed,
    /// An error ended it.
    #[error(transparent)]
    Error(#[from] ConnectionError),
}

impl EndReason {
    /// How the transport broke, if that is how the tunnel ended.
    pub fn transport_error(&self) -> Option<&TransportError> {
        match self {
            Self::Error(ConnectionError::TransportLost(error)) => Some(error),
            _ => None,
        }
    }

    /// Which side ended the tunnel.
    pub fn initiator(&self) -> Initiator {
        match self {
            Self::Closed | Self::ClosedWith(_) | Self::Drained => Initiator::User,
            Self::PeerClosed | Self::PeerDrained => Initiator::Remote,
            Self::Error(e) => e.initiator(),
        }
    }
}

/// A fault of a peer on one stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// `new_stream` without a method.
    #[error("empty method name")]
    EmptyMethod,
    /// `new_stream` with a revision that was not offered.
    #[error("protocol revision {0} was not offered")]
    RevisionNotOffered(i32),
    /// More data than the window allowed.
    #[error("flow control window exceeded")]
    WindowExceeded,
    /// A window larger than [`MAX_WINDOW`](crate::config::MAX_WINDOW).
    #[error("flow control window larger than 2^31-1")]
    WindowOverflow,
    /// A message began inside another.
    #[error("a message began {0} bytes before the last one was whole")]
    MessageInsideMessage(u32),
    /// Data outside a message, or beyond the message's declared size.
    #[error("more data than the message declared")]
    ExcessData,
    /// The end came inside a message.
    #[error("the message was cut short: {0} bytes are missing")]
    TruncatedMessage(u32),
    /// A message or a header after the half-close.
    #[error("data after half-close")]
    DataAfterHalfClose,
    /// Response headers for the second time, or after messages.
    #[error("response headers came twice")]
    HeadersTwice,
    /// A message larger than
    /// [`max_message_size`](crate::config::ConfigBuilder::max_message_size).
    #[error("a message of {size} bytes, but max_message_size is {limit}")]
    MessageTooLarge {
        /// The size it declared, in bytes.
        size: u32,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A compressed message, although not both ends accept them.
    #[error("a compressed message, but this tunnel does not carry them")]
    CompressedMessage,
    /// A limit of one stream.
    #[error("{0}")]
    Limit(Limit),
}

impl StreamFault {
    /// The limit that was reached, if that is the fault.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::MessageTooLarge { .. } => Some(Limit::MessageSize),
            Self::Limit(limit) => Some(*limit),
            _ => None,
        }
    }

    /// The gRPC code of the fault, as found by one side.
    ///
    /// To a caller the fault is a server's error: INTERNAL. To a handler it is a bad request:
    /// INVALID_ARGUMENT.
    pub fn code(&self, found_by: Side) -> Code {
        match self {
            Self::WindowExceeded => Code::ResourceExhausted,
            Self::MessageTooLarge { .. } => Code::OutOfRange,
            Self::Limit(_) => Code::ResourceExhausted,
            _ if found_by == Side::Handler => Code::InvalidArgument,
            _ => Code::Internal,
        }
    }
}

/// Why one stream ended otherwise than by its peer's close.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamError {
    /// The gRPC code for the application.
    pub code: Code,
    /// A sentence for developers.
    pub message: Cow<'static, str>,
    /// Who ended the stream.
    pub initiator: Initiator,
    /// Whether the far handler certainly never saw the call, so that it is safe to retry.
    pub not_processed: bool,
    /// How the tunnel ended, if that ended the stream: the
    /// [source](std::error::Error::source).
    pub tunnel_ended: Option<Arc<EndReason>>,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, Printable(&self.message))
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.tunnel_ended.as_deref().map(|reason| reason as _)
    }
}

impl StreamError {
    /// An error of a call that may have been processed.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>, initiator: Initiator) -> Self {
        Self {
            code,
            message: message.into(),
            initiator,
            not_processed: false,
            tunnel_ended: None,
        }
    }

    pub(crate) fn fault(fault: &StreamFault, found_by: Side) -> Self {
        let initiator = match fault {
            StreamFault::Limit(_) | StreamFault::MessageTooLarge { .. } => Initiator::Library,
            _ => Initiator::Remote,
        };
        Self::new(fault.code(found_by), fault.to_string(), initiator)
    }

    pub(crate) fn deadline(side: Side) -> Self {
        let initiator = match side {
            Side::Caller => Initiator::User,
            Side::Handler => Initiator::Remote,
        };
        Self::new(
            Code::DeadlineExceeded,
            "the call's deadline passed",
            initiator,
        )
    }

    /// The error of a call whose tunnel ended. A caller's error says whether the call may have been
    /// processed.
    pub(crate) fn tunnel_ended(reason: &Arc<EndReason>, side: Side, reached_peer: bool) -> Self {
        let report = Report(&**reason);
        let message = match (side, reached_peer) {
            (Side::Handler, _) => report.to_string(),
            (Side::Caller, true) => {
                format!("{report}; the call was sent and may have been processed")
            }
            (Side::Caller, false) => format!("{report}; the call was not sent"),
        };
        Self {
            code: Code::Unavailable,
            message: message.into(),
            initiator: reason.initiator(),
            not_processed: !reached_peer,
            tunnel_ended: Some(reason.clone()),
        }
    }

    /// The error as a status of the wire.
    pub fn to_status(&self) -> Status {
        Status::new(self.code, self.message.clone())
    }
}

/// Why [`Connection::open`](crate::Connection::open) could not open a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The settings of the handler have not arrived yet.
    #[error("the tunnel is not ready yet")]
    NotReady,
    /// This side serves calls; it cannot issue them.
    #[error("a handler cannot open streams")]
    NotCaller,
    /// The limit on concurrent streams is reached.
    #[error("the tunnel has {0} calls in flight, as many as it may")]
    StreamLimit(usize),
    /// The metadata is larger than the limit.
    #[error("the call's metadata has {size} bytes, the limit is {limit}")]
    MetadataSize {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The method name is empty.
    #[error("the call has no method name")]
    EmptyMethod,
    /// The deadline in the call's metadata has passed already.
    #[error("the call's deadline passed before it was sent")]
    DeadlineExceeded,
    /// The tunnel takes no new calls: one of its ends is draining it.
    #[error("the tunnel is draining")]
    Draining,
    /// All stream ids are used.
    #[error("the tunnel has no stream ids left")]
    IdsExhausted,
    /// The tunnel has ended.
    #[error("the tunnel has ended")]
    Ended(#[source] EndReason),
}

impl OpenError {
    /// The limit that was reached, if that is the reason.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::StreamLimit(_) => Some(Limit::ConcurrentStreams),
            Self::MetadataSize { .. } => Some(Limit::MetadataSize),
            _ => None,
        }
    }

    /// The gRPC code of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::StreamLimit(_) | Self::MetadataSize { .. } => Code::ResourceExhausted,
            Self::EmptyMethod => Code::InvalidArgument,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::NotCaller => Code::FailedPrecondition,
            Self::NotReady | Self::Draining | Self::IdsExhausted | Self::Ended(_) => {
                Code::Unavailable
            }
        }
    }
}

/// Why something could not be sent on a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The stream has ended or does not exist.
    #[error("the stream has ended")]
    Gone,
    /// The sending half was finished before.
    #[error("the stream's sending half is finished")]
    Finished,
    /// Only the other side may send this.
    #[error("this side of the tunnel cannot send that")]
    WrongSide,
    /// A message must be written whole before the next begins or the half is finished.
    #[error("{0} bytes of the message are still to be written")]
    MessageIncomplete(u32),
    /// More was written than the message declared.
    #[error("more bytes than the message declared")]
    ExcessData,
    /// A message of a body is compressed, and the peer does not accept compressed messages.
    #[error("a compressed message cannot be sent through this tunnel")]
    Compressed,
    /// A message of a body has a flag that gRPC does not know.
    #[error("a message begins with flags {0}, only 0 and 1 have a meaning")]
    Flags(u8),
    /// The metadata is larger than the limit.
    #[error("metadata of {size} bytes, the limit is {limit}")]
    MetadataSize {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The message is larger than the wire format allows.
    #[error("a message of {0} bytes is larger than the wire can say")]
    MessageTooLarge(usize),
    /// Headers were sent before, explicitly or by the first message.
    #[error("the response headers were sent already")]
    HeadersSent,
}
