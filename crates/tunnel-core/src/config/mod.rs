//! Limits, windows and timeouts, with their defaults and caps.
//!
//! The settings of a [`Config`] never contradict each other: [`ConfigBuilder::build`] returns an
//! error that names the contradiction. Each setter documents what happens at its limit.
//!
//! # The worst-case memory of a tunnel
//!
//! Without [`overcommit`](ConfigBuilder::overcommit), and with `S` =
//! [`max_concurrent_streams`](ConfigBuilder::max_concurrent_streams), a peer can make this side
//! hold at most
//!
//! ```text
//!     received payload        max_buffered_bytes
//!   + buffers it keeps alive  5 × max_buffered_bytes
//!   + room for small payload  S × 16 KiB
//!   + room of readers         S × max_message_size
//!   + message boundaries      2 × (max_buffered_bytes + max_unread_empty_messages)
//!   + metadata                S × 3 × max_metadata_size (headers, trailers, status)
//!   + refusals not yet read   (max_pending_refusals + S) × 256 bytes
//!   + the stream table        S × about 700 bytes
//! ```
//!
//! The local application can make it hold at most
//! `S × (send_buffer + its largest single write + max_metadata_size)`. In addition there are the
//! buffers of the transport: one partial frame of at most
//! [`max_frame_size`](ConfigBuilder::max_frame_size) and one batch of `transmit`. Decoding a frame
//! takes at most fifty times its size for a moment ([`codec`](crate::frame::codec) says when).
//!
//! *Room of readers*: a reader such as tonic's, or [`RecvStream::message`](crate::RecvStream::message),
//! reserves memory for a whole message when the message begins. So 1,024 uploads that stall inside messages of 4 MiB cost 4 GiB. *Largest single
//! write*: a message that a handler sends is queued whole when the peer does not read. Both count
//! in [`Connection::memory`](crate::Connection::memory), so that a runtime can limit the sum over
//! many tunnels ([`shed`](crate::Connection::shed)).
//!
//! *Buffers it keeps alive*: a piece of a message of 4 KiB or more is a slice of the buffer it was
//! received in. With this crate's [`Deframer`](crate::frame::framing::Deframer) a slice pins at
//! most six times its size. Smaller pieces are copied into a buffer of the stream, which is at most
//! four times as large as its content; beyond 4 KiB of content it continues in blocks of 16 KiB, of
//! which the last may be empty (*room for small payload*).
//!
//! *Message boundaries*: a boundary is the message's size in seven bits a byte, so it never has
//! more bytes than its message, and one byte for an empty message. The list of them may have as
//! much spare capacity again.

mod builder;

use std::time::Duration;

use crate::frame::MAX_CHUNK_SIZE;

pub use builder::{ConfigBuilder, ConfigError};

/// The largest window, in bytes: HTTP/2's own limit, so that a window fits a
/// signed 32-bit number at every peer.
pub const MAX_WINDOW: u32 = i32::MAX as u32;

/// Which protocol revisions one side is willing to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revisions {
    /// Revision one, and zero with a peer that does not negotiate. The default.
    #[default]
    ZeroAndOne,
    /// Revision zero alone: no flow control inside the tunnel.
    OnlyZero,
    /// Revision one alone: a tunnel to a peer that does not speak it fails.
    OnlyOne,
}

impl Revisions {
    pub(crate) fn allows_zero(self) -> bool {
        !matches!(self, Self::OnlyOne)
    }

    pub(crate) fn allows_one(self) -> bool {
        !matches!(self, Self::OnlyZero)
    }

    /// The list a handler announces.
    pub(crate) fn to_wire(self) -> Vec<i32> {
        match self {
            Self::ZeroAndOne => vec![0, 1],
            Self::OnlyZero => vec![0],
            Self::OnlyOne => vec![1],
        }
    }
}

/// The validated settings of a [`Connection`](crate::Connection).
///
/// ```
/// use tunnel_core::Config;
///
/// let config = Config::builder()
///     .max_message_size(64 << 20)
///     .max_concurrent_streams(256)
///     .build()?;
/// # let _ = config;
///
/// // Settings that contradict each other are an error that says why.
/// let refused = Config::builder().initial_window(8 << 20).build();
/// assert!(refused.is_err());
/// # Ok::<(), tunnel_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(crate) v: Values,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> $ty {
            self.v.$name
        }
    )*};
}

/// The settings; [`ConfigBuilder`] documents each of them.
impl Config {
    getters! {
        /// The revisions that this side speaks.
        revisions: Revisions;
        /// The limit on concurrent streams.
        max_concurrent_streams: usize;
        /// The window that each stream starts with, in bytes.
        initial_window: u32;
        /// The size to which a window may grow, in bytes.
        max_window: u32;
        /// The largest piece of a message in one sent frame, in bytes.
        chunk_size: usize;
        /// The largest message accepted, in bytes.
        max_message_size: usize;
        /// The largest metadata of one frame, in bytes.
        max_metadata_size: usize;
        /// The largest encoded frame accepted, in bytes: for the transport's deframer.
        max_frame_size: usize;
        /// How many bytes may be unread on all streams together.
        max_buffered_bytes: usize;
        /// Whether all initial windows together may exceed `max_buffered_bytes`.
        overcommit: bool;
        /// How many bytes a stream buffers for sending before it stops being writable.
        send_buffer: usize;
        /// How many empty messages that cost no window may be unread.
        max_unread_empty_messages: usize;
        /// How many refusals may wait to be sent.
        max_pending_refusals: usize;
        /// How long a peer may leave refusals unread at that limit.
        refusal_stall_timeout: Duration;
        /// How many frames for ended streams are ignored beyond those in flight.
        max_stray_frames: usize;
        /// How many useless frames are ignored.
        max_empty_frames: usize;
        /// Revision zero: how many unread bytes stop the tunnel from being read.
        unread_high_mark: usize;
        /// Revision zero: below how many unread bytes the tunnel is read again.
        unread_low_mark: usize;
        /// Revision zero: how many unread messages stop the tunnel from being read.
        unread_high_messages: usize;
        /// Revision zero: how long the tunnel may stay unread.
        unread_stall_timeout: Duration;
        /// How long a caller waits for the handler's settings.
        settings_timeout: Duration;
        /// How long a drained tunnel stays open for a caller without drain notices.
        drain_grace: Duration;
        /// The heartbeat interval; `None` without heartbeats.
        heartbeat: Option<Duration>;
        /// The shortest silence for which a peer counts as lost.
        silence_timeout: Duration;
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Values {
    pub(crate) revisions: Revisions,
    pub(crate) max_concurrent_streams: usize,
    pub(crate) initial_window: u32,
    pub(crate) max_window: u32,
    pub(crate) chunk_size: usize,
    pub(crate) max_message_size: usize,
    pub(crate) max_metadata_size: usize,
    pub(crate) max_frame_size: usize,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) overcommit: bool,
    pub(crate) send_buffer: usize,
    pub(crate) max_unread_empty_messages: usize,
    pub(crate) max_pending_refusals: usize,
    pub(crate) max_stray_frames: usize,
    pub(crate) max_empty_frames: usize,
    pub(crate) refusal_stall_timeout: Duration,
    pub(crate) unread_high_mark: usize,
    pub(crate) unread_low_mark: usize,
    pub(crate) unread_high_messages: usize,
    pub(crate) unread_stall_timeout: Duration,
    pub(crate) settings_timeout: Duration,
    pub(crate) drain_grace: Duration,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) silence_timeout: Duration,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            revisions: Revisions::ZeroAndOne,
            max_concurrent_streams: 1024,
            initial_window: 96 << 10,
            max_window: 16 << 20,
            chunk_size: MAX_CHUNK_SIZE,
            max_message_size: 4 << 20,
            max_metadata_size: 64 << 10,
            max_frame_size: 256 << 10,
            max_buffered_bytes: 160 << 20,
            overcommit: false,
            send_buffer: 128 << 10,
            max_unread_empty_messages: 16 << 20,
            max_pending_refusals: 4096,
            max_stray_frames: 16_384,
            max_empty_frames: 1024,
            refusal_stall_timeout: Duration::from_secs(30),
            unread_high_mark: 8 << 20,
            unread_low_mark: 2 << 20,
            unread_high_messages: 65_536,
            unread_stall_timeout: Duration::from_secs(30),
            settings_timeout: Duration::from_secs(10),
            drain_grace: Duration::from_secs(1),
            heartbeat: Some(Duration::from_secs(5)),
            silence_timeout: Duration::ZERO,
        }
    }
}

impl Values {
    /// The unread bytes that granted credit allows the peer to send.
    pub(crate) fn promised(&self) -> usize {
        let windows = self
            .max_concurrent_streams
            .saturating_mul(self.initial_window as usize);
        let unwindowed = if self.revisions.allows_zero() {
            self.unread_high_mark
        } else {
            0
        };
        windows.saturating_add(unwindowed)
    }

    /// The bytes left for further credit and for held messages. With overcommit the promised bytes
    /// are not subtracted, and the memory in use is checked instead.
    pub(crate) fn spare(&self) -> usize {
        let promised = if self.overcommit { 0 } else { self.promised() };
        self.max_buffered_bytes.saturating_sub(promised)
    }
}
