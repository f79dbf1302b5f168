//! The gRPC tunnel protocol (`grpctunnel.v1`) as a state machine without I/O.
//!
//! A tunnel is one bidirectional gRPC stream that presents itself as a gRPC channel: any
//! number of calls, multiplexed with flow control. This crate is what both of its ends have in
//! common, without a runtime, a clock or a socket, so that it can be embedded in any transport
//! that carries frames in order: a gRPC stream (the `tunnel-tonic` crate), a WebSocket, a QUIC
//! stream, a Unix socket.
//!
//! - [`Connection`] is the state machine; its documentation is the contract.
//! - [`frame`] has the frames, their bytes, and their framing on a byte stream.
//! - [`Config`] has every limit, window and timeout, and the formula of worst-case memory.
//!
//! # What it promises
//!
//! - No input panics, allocates by a declared size, or makes it hold more than the formula says.
//! - A peer's fault on one stream ends that stream alone.
//! - Frames of one stream leave in order; no stream can starve another.
//! - When all streams have ended, every counter is zero.
//!
//! # What makes it fast
//!
//! Measured with `cargo bench -p tunnel-core`, both ends of a tunnel together. A unary call of
//! 16 bytes took 24,300 instructions and 15 allocations before these decisions; their module docs
//! say more, `benches/instructions.toml` has what it takes now.
//!
//! - A hash of its own for stream ids ([`StreamIdHash`]): the standard library's was 13 % of a call.
//! - Bodies of calls are taken and handed out as they are, many messages at a time
//!   ([`SendStream::body`], [`RecvStream::body`]), instead of one by one.
//! - Frames that carry messages are written and read in one pass; all others take the general way.
//! - The first item of every queue of a stream stands in the stream: six allocations less a call.
//! - A stream's turn is a chunk in bytes, not a message, so small messages share one look-up.
//! - Messages up to 512 bytes are copied when they are queued, so that they do not hold on to the
//!   buffers they were encoded in (8 KiB each with tonic).
//! - Full chunks of a 64 KiB batch stay slices of it ([`frame::framing`]): copying three of four
//!   of them was half of what receiving large messages took.

pub mod config;
mod connection;
mod error;
mod event;
pub mod frame;
pub mod metadata;
mod side;
mod status;
mod streams;
mod timer;
mod transport;

pub use config::{Config, ConfigBuilder, ConfigError, Revisions};
pub use connection::{
    BodyRead, Connection, DRAIN_HEADER, HEARTBEAT_HEADER, MAX_STREAMS_HEADER,
    MESSAGE_CREDIT_HEADER, NEGOTIATE_HEADER, NEGOTIATE_VALUE, NOT_PROCESSED_KEY,
    OPAQUE_TEXT_HEADER, Offer, Read, RecvStream, SendStream,
};
pub use error::{
    ConnectionError, EndReason, Initiator, Limit, OpenError, StreamError, StreamFault, WriteError,
};
pub use event::{Event, Note};
pub use frame::{CloseStream, Frame, FrameKind, FrameKindRef, FrameRef, FrameSink};
pub use metadata::Metadata;
pub use side::Side;
pub use status::{Code, Status, StatusDetail};
pub use streams::counts::Stats;
pub use streams::hash::{StreamIdHash, StreamIdHasher};
pub use streams::recv::Chunk;
pub use streams::released::Released;
pub use streams::{Revision, StreamId};
pub use timer::{format_grpc_timeout, parse_grpc_timeout};
pub use transport::{Printable, Report, TransportCause, TransportError};
