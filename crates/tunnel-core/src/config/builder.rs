//! The builder of a [`Config`], and the checks of its settings.

use std::time::Duration;

use super::{Config, MAX_WINDOW, Revisions, Values};
use crate::frame::MAX_CHUNK_SIZE;

/// With a shorter interval an ordinary delay would look like the loss of the peer.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

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
        /// Over the limit a caller's [`open`](crate::Connection::open) fails at once with
        /// RESOURCE_EXHAUSTED. A handler refuses a new stream with RESOURCE_EXHAUSTED, marked as
        /// not processed. A cancelled call counts until its handler has
        /// [stopped](crate::Connection::handler_done); new calls wait for that.
        max_concurrent_streams: usize;

        /// The window that each stream starts with, in bytes: how much the peer may send before the
        /// application reads. Default 98,304 (96 KiB), so that a message of 64 KiB with its
        /// encoding needs no second round trip. The Go and Python libraries use 65,536.
        ///
        /// A stream whose peer exceeds its window is ended with RESOURCE_EXHAUSTED. Use less than
        /// 65,536 only with peers that obey it: the Python caller always sends that much.
        initial_window: u32;

        /// The size to which a window may grow, in bytes. A window grows while its application
        /// keeps up and the window limits the sender. Default 16 MiB, which allows 168 MB/s on a
        /// link with a round-trip time of 100 ms. The size of the initial window turns growth off.
        ///
        /// A window never grows beyond what the link can use: 1 MiB for each millisecond of the
        /// round-trip time, at least 512 KiB. All windows together grow by at most half of what
        /// [`max_buffered_bytes`](Self::max_buffered_bytes) leaves beside the initial windows; the
        /// other half is for messages larger than a window.
        max_window: u32;

        /// The largest piece of a message in one sent frame, in bytes. Default and maximum 16,384,
        /// as the protocol says.
        chunk_size: usize;

        /// The largest message accepted, in bytes. Default 4 MiB, as in tonic.
        ///
        /// A larger message ends its stream with OUT_OF_RANGE, the code that tonic uses. A declared
        /// size allocates nothing.
        max_message_size: usize;

        /// The largest metadata of one frame, in bytes, as counted by
        /// [`Metadata::size`](crate::Metadata::size). The method name counts too, and a status has
        /// the same limit. Default 64 KiB.
        ///
        /// A received call with more is ended with RESOURCE_EXHAUSTED. Opening a call with more
        /// fails.
        max_metadata_size: usize;

        /// The largest encoded frame accepted, in bytes. Default 256 KiB. A larger frame ends the
        /// tunnel, because the next one cannot be found. The minimum is twice
        /// [`max_metadata_size`](Self::max_metadata_size) plus 64 KiB.
        max_frame_size: usize;

        /// How many bytes may be unread on all streams together. Default 160 MiB: 96 MiB for 1,024
        /// initial windows of 96 KiB, 8 MiB for revision zero, and 56 MiB for windows that grow
        /// and for large messages.
        ///
        /// `max_concurrent_streams × initial_window + unread_high_mark` must fit into it, unless
        /// [`overcommit`](Self::overcommit) is set: a granted window cannot be taken back.
        max_buffered_bytes: usize;

        /// Allows all initial windows together to exceed
        /// [`max_buffered_bytes`](Self::max_buffered_bytes). Default false.
        ///
        /// When the unread bytes exceed the limit, the streams with the most unread bytes are
        /// ended with RESOURCE_EXHAUSTED until the rest fits.
        overcommit: bool;

        /// How many bytes a stream buffers for sending before it stops being writable. Default
        /// 128 KiB. A single write may exceed it.
        send_buffer: usize;

        /// How many empty messages may be unread on all streams together, from peers whose messages
        /// cost no window (other libraries). Default 16,777,216, which take at most 32 MiB. A stream
        /// that receives one more is ended with RESOURCE_EXHAUSTED.
        max_unread_empty_messages: usize;

        /// How many refusals may wait to be sent to a peer that opens streams and does not read.
        /// Default 4,096, with 128 bytes of text each on average. At the limit the tunnel is not
        /// read until half of them were sent; see
        /// [`refusal_stall_timeout`](Self::refusal_stall_timeout). Above half of the limit, replies
        /// that the peer does not wait for are dropped.
        max_pending_refusals: usize;

        /// How long a peer may leave refusals unread at the limit of
        /// [`max_pending_refusals`](Self::max_pending_refusals) before the tunnel ends. Default
        /// 30 s.
        refusal_stall_timeout: Duration;

        /// How many frames for ended streams are ignored beyond those that may have been in flight
        /// when the stream ended: the rest of its window, or 64 MiB where there is no window. A
        /// useful frame for a live stream gives one back. Default 16,384. One more ends the tunnel.
        max_stray_frames: usize;

        /// How many useless frames are ignored: empty pieces of a message, window updates of zero,
        /// unknown kinds. A useful frame gives one back. Default 1,024. One more ends the tunnel.
        max_empty_frames: usize;

        /// Revision zero: how many unread bytes, on all its streams together, stop the tunnel from
        /// being read. Default 8 MiB.
        unread_high_mark: usize;

        /// Revision zero: the tunnel is read again below this number of unread bytes. Default 2 MiB.
        unread_low_mark: usize;

        /// Revision zero: how many unread messages, on all its streams together, stop the tunnel
        /// from being read; it is read again below half of them. Default 65,536.
        unread_high_messages: usize;

        /// Revision zero: how long the tunnel may stay unread before the streams with the most
        /// unread data are ended with RESOURCE_EXHAUSTED, as many as needed. Default 30 s.
        ///
        /// Until then every later frame of the peer waits too, a cancel for example: revision zero
        /// has no flow control.
        unread_stall_timeout: Duration;

        /// How long a caller waits for the handler's settings before opening fails. Default 10 s.
        settings_timeout: Duration;

        /// How long a drained tunnel of a handler stays open after its last call, when its caller
        /// does not understand drain notices (Go and Python do not). Meanwhile new calls are refused
        /// with UNAVAILABLE as not processed. Default 1 s.
        drain_grace: Duration;

        /// The heartbeat interval: this end sends a heartbeat when it has sent nothing for this
        /// time, so that proxies do not close an idle tunnel. Default 5 s. `None` turns heartbeats
        /// off, and with them the detection of a silent peer.
        ///
        /// A peer that offers heartbeats counts as lost when nothing was received for two and a
        /// half of its intervals (12.5 s by default). This also works behind proxies, which answer
        /// HTTP/2 pings themselves.
        heartbeat: Option<Duration>;

        /// The shortest silence for which a peer counts as lost. With short heartbeats a silent peer is noticed
        /// early ([`Connection::heard_at`](crate::Connection::heard_at)), and with this it is given up late.
        /// Default zero: two and a half intervals of the peer's heartbeats.
        silence_timeout: Duration;
    }

    /// Checks that the settings agree with each other.
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
