//! Every number that can be set, its default and its cap.
//!
//! A [`Config`] exists only in a form whose parts agree with each other:
//! [`ConfigBuilder::build`] refuses the others with a sentence. What happens
//! when a limit is reached is said at its setter.
//!
//! # The worst-case memory of a tunnel
//!
//! With `S` = [`max_concurrent_streams`](ConfigBuilder::max_concurrent_streams), and without
//! [`overcommit`](ConfigBuilder::overcommit), what a peer can make this side hold is at most
//!
//! ```text
//!     received payload        max_buffered_bytes
//!   + what it keeps alive     5 × max_buffered_bytes
//!   + room for small payload  S × 16 KiB
//!   + room of readers         S × max_message_size
//!   + message boundaries      2 × (max_buffered_bytes + max_unread_empty_messages)
//!   + metadata                S × 3 × max_metadata_size (headers, trailers, status)
//!   + refusals not yet read   (max_pending_refusals + S) × 256 bytes
//!   + the stream table        S × about 700 bytes
//! ```
//!
//! and what the local application can make it hold is at most
//! `S × (send_buffer + its largest single write + max_metadata_size)`. On top come the
//! transport's own buffers: one partial frame of at most
//! [`max_frame_size`](ConfigBuilder::max_frame_size), one batch of `transmit`; while a frame is
//! decoded, at most fifty times its size ([`codec`](crate::frame::codec) says when).
//!
//! The room of readers is what a reader such as tonic's reserves for a whole message when it
//! begins: 1,024 uploads that stall inside messages of 4 MiB cost 4 GiB. A largest single write is
//! as large as the largest message that a handler sends, and waits whole for a peer that does
//! not read. Both count in [`Connection::memory`](crate::Connection::memory), so that a runtime can
//! limit them for many tunnels together ([`shed`](crate::Connection::shed)).
//!
//! Payload keeps memory alive beyond itself. A piece of 4 KiB or more is a slice of the buffer it
//! came in: with this crate's [`Deframer`](crate::frame::framing::Deframer) it pins at most six
//! times its size, five times beyond it. Smaller pieces are copied together. The buffer for them
//! grows by need, to at most four times what is in it; a stream that has more than 4 KiB of them
//! unread goes on in blocks of 16 KiB and may have that much room in the last one. A large piece
//! in between ends a block early; even then the room left is at most four times the small pieces.
//!
//! A boundary is the size of its message, seven bits in each byte: so never more bytes than the
//! message has, and one for an empty message. The list of them may have as much room again.

use std::time::Duration;

use crate::frame::MAX_CHUNK_SIZE;

/// The largest window, in bytes: HTTP/2's own limit, so that a window fits a
/// signed 32-bit number at every peer.
pub const MAX_WINDOW: u32 = i32::MAX as u32;

/// A shorter interval would take an ordinary delay for the loss of the peer.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// Which protocol revisions one side is willing to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
/// // Parts that contradict each other are refused with a sentence.
/// let refused = Config::builder().initial_window(8 << 20).build();
/// assert!(refused.is_err());
/// # Ok::<(), tunnel_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(crate) v: Values,
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder {
            v: Values::default(),
        }
    }

    /// Starts from these settings.
    pub fn to_builder(&self) -> ConfigBuilder {
        ConfigBuilder { v: self.v.clone() }
    }

    /// The limit on concurrent streams.
    pub fn max_concurrent_streams(&self) -> usize {
        self.v.max_concurrent_streams
    }

    /// The limit on one received message, in bytes.
    pub fn max_message_size(&self) -> usize {
        self.v.max_message_size
    }

    /// The limit on the metadata of one frame, in bytes.
    pub fn max_metadata_size(&self) -> usize {
        self.v.max_metadata_size
    }

    /// The limit on one encoded frame, in bytes: for the transport's deframer.
    pub fn max_frame_size(&self) -> usize {
        self.v.max_frame_size
    }

    /// The window each stream starts with, in bytes.
    pub fn initial_window(&self) -> u32 {
        self.v.initial_window
    }

    /// How long a caller waits for settings.
    pub fn settings_timeout(&self) -> Duration {
        self.v.settings_timeout
    }

    /// After how long without sending a heartbeat is sent; `None` if none is.
    pub fn heartbeat(&self) -> Option<Duration> {
        self.v.heartbeat
    }

    /// The revisions this side is willing to speak.
    pub fn revisions(&self) -> Revisions {
        self.v.revisions
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
        }
    }
}

/// Collects settings for a [`Config`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ConfigBuilder {
    v: Values,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, value: $ty) -> Self {
            self.v.$name = value;
            self
        }
    )*};
}

impl ConfigBuilder {
    setters! {
        /// Which protocol revisions this side speaks. Default: both.
        revisions: Revisions;

        /// How many streams may be open at once. Default 1,024.
        ///
        /// Past it a caller's own [`open`](crate::Connection::open) fails at once with
        /// RESOURCE_EXHAUSTED, and a handler refuses the new stream with the same, as not
        /// processed. A handler of a cancelled call counts until it is
        /// [gone](crate::Connection::handler_done): calls that come meanwhile wait.
        max_concurrent_streams: usize;

        /// The window each stream starts with, in bytes: what the peer may send before the
        /// application has read. Default 98,304 (96 KiB): a message of 64 KiB and what its encoding
        /// adds fit, so that a call with one needs no second round trip. Other speakers of the
        /// protocol have 65,536, which is just too little for that.
        ///
        /// Set less than 65,536 only for peers known to obey it: the Python caller sends that much
        /// whatever it was told. A peer that sends beyond the window has that stream ended
        /// with RESOURCE_EXHAUSTED.
        initial_window: u32;

        /// How far a window may grow by itself, in bytes, while its application keeps up and
        /// the window is what holds the sender back. Over short ways it grows no further than a
        /// fast link has use for (1 MiB for each millisecond of a round trip, at least 512 KiB):
        /// what is more only has the calls beside it wait. Default 16 MiB: over a link of 50 ms each way
        /// a stream needs that much to be as fast as gRPC whose windows were tuned for it (4 MiB
        /// for each round trip of 100 ms are 42 MB/s, 16 MiB are 168). The initial window turns
        /// growth off. All windows together grow by at most half of what
        /// [`max_buffered_bytes`](Self::max_buffered_bytes) leaves over the promised initial
        /// windows; the other half is for messages larger than a window.
        max_window: u32;

        /// The largest piece of a message sent in one frame, in bytes. Default and cap 16,384,
        /// the protocol's number.
        chunk_size: usize;

        /// The largest message accepted, in bytes. Default 4 MiB, tonic's and gRPC's number.
        ///
        /// A larger one ends its stream with OUT_OF_RANGE (the code tonic uses for the same).
        /// Nothing is allocated by a declared size.
        max_message_size: usize;

        /// The largest metadata of one frame, in bytes, as
        /// [`Metadata::size`](crate::Metadata::size) counts it; the method name counts too, and
        /// a status is held to the same limit. Default 64 KiB.
        ///
        /// A call received with more is ended with RESOURCE_EXHAUSTED; opening one with more
        /// fails likewise.
        max_metadata_size: usize;

        /// The largest encoded frame accepted, in bytes. Default 256 KiB. A larger one ends
        /// the tunnel: what follows cannot be found. At least twice
        /// [`max_metadata_size`](Self::max_metadata_size) and 64 KiB more.
        max_frame_size: usize;

        /// What may lie unread on all streams together, in bytes. Default 160 MiB: 96 MiB for 1,024
        /// streams of 96 KiB, 8 MiB for revision zero, and 56 MiB for windows that grow and for
        /// large messages.
        ///
        /// Streams × initial window, and the high mark of revision zero, must fit, so that no
        /// promise is made that cannot be kept; see [`overcommit`](Self::overcommit).
        max_buffered_bytes: usize;

        /// Allows streams × initial window to exceed
        /// [`max_buffered_bytes`](Self::max_buffered_bytes). Default false.
        ///
        /// When the sum of unread bytes then reaches the cap, the stream with the most unread
        /// bytes is ended with RESOURCE_EXHAUSTED, again and again until the sum fits.
        overcommit: bool;

        /// How many bytes a stream takes from its application before it is not writable any
        /// more. Default 128 KiB. One write may overshoot it.
        send_buffer: usize;

        /// How many empty messages that cost no window may lie unread on all streams together:
        /// those of peers that do not count messages. Default 16 Mi, which take at most 32 MiB. Past
        /// it the stream that receives one more is ended with RESOURCE_EXHAUSTED.
        max_unread_empty_messages: usize;

        /// How many refusals may wait to be read by a peer that opens streams faster than it
        /// reads. Default 4,096, with 128 bytes of text each on average. At the limit the tunnel
        /// is not read until half of them are gone; see
        /// [`refusal_stall_timeout`](Self::refusal_stall_timeout). Replies that nobody waits for
        /// are left out above half of it.
        max_pending_refusals: usize;

        /// How long a peer may leave its refusals unread at the limit before the tunnel ends.
        /// Default 30 s.
        refusal_stall_timeout: Duration;

        /// How many frames for streams that have ended are ignored beyond those that may have
        /// been under way when they ended (what was left of the window; 64 MiB and as many empty
        /// messages where there is none), each frame that says something on a live stream
        /// making up for one. Default 16,384. One more ends the tunnel.
        max_stray_frames: usize;

        /// How many frames that say nothing (an empty piece of a message, an empty window
        /// update, an unknown kind) are ignored, each frame that says something making up for
        /// one. Default 1,024. One more ends the tunnel.
        max_empty_frames: usize;

        /// Revision zero: how many unread bytes on all its streams stop the reading of the
        /// tunnel. Default 8 MiB.
        unread_high_mark: usize;

        /// Revision zero: below how many unread bytes reading goes on. Default 2 MiB.
        unread_low_mark: usize;

        /// Revision zero: how many unread messages on all its streams stop the reading of the
        /// tunnel; half as many let it go on. Default 65,536.
        unread_high_messages: usize;

        /// Revision zero: how long reading may stand still before the fullest streams are ended
        /// with RESOURCE_EXHAUSTED, as many as it takes to read on. Default 30 s.
        ///
        /// Until then whatever the peer sent behind the unread data waits too, a cancel
        /// included: without windows there is nothing else that could be done.
        unread_stall_timeout: Duration;

        /// How long a caller waits for the handler's settings before it gives up on the tunnel.
        /// Default 10 s.
        settings_timeout: Duration;

        /// How long a handler's drained tunnel stays open after its last call when its caller does
        /// not understand drain notices (other implementations do not). Meanwhile new calls
        /// are refused with UNAVAILABLE; without it, those under way would be cut. Default 1 s.
        drain_grace: Duration;

        /// After how long without sending anything this end sends a heartbeat, so that no proxy
        /// takes the tunnel for idle. Default 5 s; `None` for none, and then no silence of the peer
        /// ends the tunnel either.
        ///
        /// A peer that offers heartbeats is lost after two and a half of its own intervals in
        /// which nothing is heard from it: with the default after 12.5 s. Heartbeats go through
        /// proxies, which answer HTTP/2 pings themselves.
        heartbeat: Option<Duration>;
    }

    /// Checks that the parts agree.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] whose text names the contradiction.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.check_ranges()?;
        self.check_memory()?;
        Ok(Config { v: self.v })
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let v = &self.v;
        let at_least_one = [
            ("max_concurrent_streams", v.max_concurrent_streams),
            ("chunk_size", v.chunk_size),
            ("send_buffer", v.send_buffer),
            ("max_unread_empty_messages", v.max_unread_empty_messages),
            ("max_pending_refusals", v.max_pending_refusals),
            ("unread_high_messages", v.unread_high_messages),
        ];
        for (name, value) in at_least_one {
            ensure(value > 0, || format!("{name} must be at least 1"))?;
        }
        ensure(v.chunk_size <= MAX_CHUNK_SIZE, || {
            format!(
                "chunk_size is {}, but the protocol allows at most {MAX_CHUNK_SIZE}",
                v.chunk_size
            )
        })?;
        ensure(v.initial_window <= v.max_window, || {
            format!(
                "initial_window ({}) is larger than max_window ({})",
                v.initial_window, v.max_window
            )
        })?;
        ensure(v.max_window <= MAX_WINDOW, || {
            format!(
                "max_window is {}, but a window is at most {MAX_WINDOW}",
                v.max_window
            )
        })?;
        ensure(v.initial_window > 0, || {
            "initial_window is 0: no message that is not empty could ever be received".into()
        })?;
        ensure(v.max_message_size <= u32::MAX as usize, || {
            format!(
                "max_message_size is {}, but the wire can only say {}",
                v.max_message_size,
                u32::MAX
            )
        })?;
        ensure(v.unread_low_mark < v.unread_high_mark, || {
            format!(
                "unread_low_mark ({}) must be below unread_high_mark ({})",
                v.unread_low_mark, v.unread_high_mark
            )
        })?;
        ensure(!v.refusal_stall_timeout.is_zero(), || {
            "refusal_stall_timeout is zero: no peer could ever be in time".into()
        })?;
        ensure(!v.unread_stall_timeout.is_zero(), || {
            "unread_stall_timeout is zero: no reader could ever be in time".into()
        })?;
        ensure(v.heartbeat.is_none_or(|h| h >= SHORTEST_HEARTBEAT), || {
            format!("heartbeat is shorter than {SHORTEST_HEARTBEAT:?}")
        })?;
        ensure(!v.settings_timeout.is_zero(), || {
            "settings_timeout is zero: every tunnel would fail".into()
        })
    }

    fn check_memory(&self) -> Result<(), ConfigError> {
        let v = &self.v;
        let frame = v
            .max_metadata_size
            .saturating_mul(2)
            .saturating_add(64 << 10);
        ensure(v.max_frame_size >= frame, || {
            format!(
                "max_frame_size ({}) is too small for max_metadata_size ({}): it needs {frame}",
                v.max_frame_size, v.max_metadata_size
            )
        })?;
        let promised = v.promised();
        ensure(v.overcommit || promised <= v.max_buffered_bytes, || {
            format!(
                "{} streams with windows of {} bytes and an unread_high_mark of {} promise {promised} \
                 bytes, more than max_buffered_bytes ({}); lower one of them, raise the cap, or \
                 choose overcommit",
                v.max_concurrent_streams,
                v.initial_window,
                v.unread_high_mark,
                v.max_buffered_bytes
            )
        })
    }
}

impl Values {
    /// What the peer was promised it may send unread, in bytes.
    fn promised(&self) -> usize {
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

    /// What may be granted or held beyond the promise, in bytes. With overcommit the promise does
    /// not count: what is used is watched instead.
    pub(crate) fn spare(&self) -> usize {
        let promised = if self.overcommit { 0 } else { self.promised() };
        self.max_buffered_bytes.saturating_sub(promised)
    }
}

fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError(sentence()))
    }
}

/// Why a [`Config`] was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);
