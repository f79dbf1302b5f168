//! The gRPC tunnel protocol (`grpctunnel.v1`) as a state machine without I/O.
//!
//! A tunnel is one bidirectional gRPC stream that carries any number of gRPC calls, multiplexed
//! with flow control. This crate implements both ends of it without a runtime, a clock or a socket.
//! It can be embedded in any transport that delivers frames in the order in which they were sent: a
//! gRPC stream (the `tunnel-tonic` crate), a WebSocket, a QUIC stream, a Unix socket. The examples
//! `custom-transport` and `web-socket` are such transports, small enough to copy.
//!
//! - [`Connection`] is the state machine; its documentation is the contract.
//! - [`Waiters`] records which task waits for which stream, for a runtime that keeps the state
//!   machine behind a lock.
//! - [`frame`] has the frames, their bytes, and their framing on a byte stream.
//! - [`Config`] has every limit, window and timeout, and the formula of worst-case memory.
//!
//! # What it promises
//!
//! - No input causes a panic or an allocation of a declared size, and memory stays within the
//!   formula of [`config`].
//! - A protocol error on one stream ends only that stream.
//! - Frames of one stream are sent in order, and no stream can starve another.
//! - When all streams have ended, every counter is zero.

pub mod config;
mod connection;
mod error;
mod event;
pub mod frame;
pub mod metadata;
mod notice;
mod side;
mod status;
mod streams;
mod timer;
mod transport;
mod waiters;

pub use config::{Config, ConfigBuilder, ConfigError, Revisions};
pub use connection::{
    BodyRead, COMPRESSED_MESSAGES_HEADER, Connection, DRAIN_HEADER, ECHO_HEADER, HEARTBEAT_HEADER,
    MAX_STREAMS_HEADER, MESSAGE_CREDIT_HEADER, NEGOTIATE_HEADER, NEGOTIATE_VALUE,
    NOT_PROCESSED_KEY, NOTICES_HEADER, OPAQUE_TEXT_HEADER, Offer, READY_HEADER, Read, RecvStream,
    SendStream, TUNNEL_ID_HEADER,
};
pub use error::{
    ConnectionError, EndReason, Initiator, Limit, OpenError, StreamError, StreamFault, WriteError,
};
pub use event::{Event, Note};
pub use frame::{CloseStream, Frame, FrameKind, FrameKindRef, FrameRef, FrameSink};
pub use metadata::Metadata;
pub use notice::Notice;
pub use side::Side;
pub use status::{Code, Status, StatusDetail};
pub use streams::counts::Stats;
pub use streams::hash::{StreamIdHash, StreamIdHasher};
pub use streams::recv::Chunk;
pub use streams::released::Released;
pub use streams::{Revision, StreamId};
pub use timer::{format_grpc_timeout, parse_grpc_timeout};
pub use transport::{Printable, Report, TransportCause, TransportError};
pub use waiters::Waiters;
