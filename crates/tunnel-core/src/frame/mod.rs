//! Frames, the messages between the two ends of a tunnel.
//!
//! [`Frame`] is a received frame and owns its payload. [`FrameRef`] is a frame to send and borrows
//! from the state machine. Both have one set of kinds for the two wire messages (`ClientToServer`
//! and `ServerToClient`); the sender's side decides which of them a frame is.
//!
//! [`codec`] encodes and decodes single frames. [`framing`] puts frames on a byte
//! stream.

pub mod codec;
pub mod framing;
mod writer;

use bytes::Bytes;

use crate::{Metadata, Status, StreamId};

/// The largest piece of a message that one frame may carry, in bytes. From the
/// protocol.
pub const MAX_CHUNK_SIZE: usize = 16_384;

/// A frame received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The stream the frame belongs to; [`StreamId::CONTROL`] for the tunnel.
    pub stream_id: StreamId,
    /// The kind and content.
    pub kind: FrameKind,
}

/// The kind and content of a received [`Frame`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameKind {
    /// Handler to caller, once, on [`StreamId::CONTROL`], as the first frame.
    Settings(Settings),
    /// Caller to handler: a call begins.
    NewStream(NewStream),
    /// Handler to caller: the response headers.
    Headers(Metadata),
    /// Both directions: a message begins. On the control stream: a [`Notice`](crate::Notice).
    Message {
        /// The size of the whole message, in bytes.
        size: u32,
        /// Its first bytes; all of them if it fits one frame.
        data: Bytes,
        /// Whether it is compressed. Only between two ends that offer it.
        compressed: bool,
    },
    /// Both directions: the message continues.
    MoreData(Bytes),
    /// Caller to handler: no more messages will come. On the control stream: the caller drains.
    HalfClose,
    /// Handler to caller: the call has ended. On the control stream: the handler drains.
    Close(CloseStream),
    /// Caller to handler: the call is cancelled.
    Cancel,
    /// Both directions, revision one: the receiver of this frame may send this many more bytes. Zero on
    /// the control stream is a heartbeat.
    WindowUpdate(u32),
    /// A frame without a kind, or of a kind from a later protocol.
    Unknown,
}

/// The handler's settings: the revisions that it supports, and its credit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Protocol revisions, as numbers of the wire. Empty means revision zero.
    pub revisions: Vec<i32>,
    /// The credit, in bytes, that the caller starts each stream with.
    pub initial_window: u32,
}

/// The beginning of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewStream {
    /// The method, with or without a leading slash.
    pub method: String,
    /// The request headers.
    pub headers: Metadata,
    /// The credit, in bytes, that the handler starts this stream with.
    pub initial_window: u32,
    /// The protocol revision of this stream, as a number of the wire.
    pub revision: i32,
}

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseStream {
    /// The response trailers.
    pub trailers: Metadata,
    /// How the call ended. Absent on the wire means OK.
    pub status: Status,
}

/// A frame to send. Everything in it is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct FrameRef<'a> {
    /// The stream the frame belongs to; [`StreamId::CONTROL`] for the tunnel.
    pub stream_id: StreamId,
    /// The kind and content.
    pub kind: FrameKindRef<'a>,
}

/// The kind and content of a [`FrameRef`]: those of [`FrameKind`], borrowed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum FrameKindRef<'a> {
    /// See [`FrameKind::Settings`].
    Settings(&'a Settings),
    /// See [`FrameKind::NewStream`].
    NewStream {
        /// The method, with its leading slash.
        method: &'a str,
        /// The request headers.
        headers: &'a Metadata,
        /// The handler's first credit on this stream, in bytes.
        initial_window: u32,
        /// The protocol revision of this stream, as a number of the wire.
        revision: i32,
    },
    /// See [`FrameKind::Headers`].
    Headers(&'a Metadata),
    /// See [`FrameKind::Message`].
    Message {
        /// The size of the whole message, in bytes.
        size: u32,
        /// Its first bytes.
        data: &'a [u8],
        /// Whether it is compressed.
        compressed: bool,
    },
    /// See [`FrameKind::MoreData`].
    MoreData(&'a [u8]),
    /// See [`FrameKind::HalfClose`].
    HalfClose,
    /// See [`FrameKind::Close`].
    Close {
        /// The response trailers.
        trailers: &'a Metadata,
        /// How the call ended.
        status: &'a Status,
    },
    /// See [`FrameKind::Cancel`].
    Cancel,
    /// See [`FrameKind::WindowUpdate`].
    WindowUpdate(u32),
}

/// Takes the frames that [`Connection::transmit`](crate::Connection::transmit) writes.
///
/// Called while the state machine is borrowed: encode or copy and return.
/// [`framing::FrameWriter`] is the one for byte streams and for gRPC.
pub trait FrameSink {
    /// Takes one frame and returns its encoded size in bytes, which counts against the budget of
    /// `transmit`.
    fn frame(&mut self, frame: FrameRef<'_>) -> usize;
}

impl FrameRef<'_> {
    /// A copy that owns its payload, as the receiver will see the frame.
    pub fn to_owned(&self) -> Frame {
        Frame {
            stream_id: self.stream_id,
            kind: match self.kind {
                FrameKindRef::Settings(s) => FrameKind::Settings(s.clone()),
                FrameKindRef::NewStream {
                    method,
                    headers,
                    initial_window,
                    revision,
                } => FrameKind::NewStream(NewStream {
                    method: method.to_owned(),
                    headers: headers.clone(),
                    initial_window,
                    revision,
                }),
                FrameKindRef::Headers(md) => FrameKind::Headers(md.clone()),
                FrameKindRef::Message {
                    size,
                    data,
                    compressed,
                } => FrameKind::Message {
                    size,
                    data: Bytes::copy_from_slice(data),
                    compressed,
                },
                FrameKindRef::MoreData(data) => FrameKind::MoreData(Bytes::copy_from_slice(data)),
                FrameKindRef::HalfClose => FrameKind::HalfClose,
                FrameKindRef::Close { trailers, status } => FrameKind::Close(CloseStream {
                    trailers: trailers.clone(),
                    status: status.clone(),
                }),
                FrameKindRef::Cancel => FrameKind::Cancel,
                FrameKindRef::WindowUpdate(n) => FrameKind::WindowUpdate(n),
            },
        }
    }
}
