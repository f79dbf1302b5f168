//! The counters behind the limits of a tunnel.
//!
//! Each limit that counts streams, bytes or frames has its counter here; refusals are counted with
//! their queue, in `schedule`. Invariant: when no stream is open, everything that counts streams or bytes is
//! zero ([`Counts::is_idle`]).

use std::time::Duration;

use super::flow::RoundTrip;
use super::stalls::Stalls;
use crate::config::Values;
use crate::{Config, Limit};

/// The number of late bytes allowed for an ended revision-zero stream, which has no window: bytes
/// that the transport may have had in flight. It is four times the transport's window in the
/// presets of the binding.
const UNWINDOWED_LATE_BYTES: u64 = 64 << 20;

/// The number of late empty messages allowed for an ended stream where they cost no window: the
/// number whose frames, of about ten bytes each, fit in those bytes.
const UNWINDOWED_LATE_MESSAGES: u64 = UNWINDOWED_LATE_BYTES / 10;

/// The number of late frames without data allowed for any ended stream: its half-close, cancel,
/// headers and close, and some spare.
const LATE_CONTROL_FRAMES: u64 = 16;

/// A snapshot of a tunnel's counters; see [`Connection::stats`](crate::Connection::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams in the table.
    pub streams: usize,
    /// Payload received and not yet read, in bytes.
    pub unread_bytes: usize,
    /// Credit granted beyond the initial windows, and large messages held back, in bytes.
    pub spare_used: usize,
    /// Data queued for sending, in bytes with the overhead of queueing.
    pub queued_bytes: usize,
    /// Calls with a deadline.
    pub deadlines: usize,
    /// Handler: calls that wait for the handler of an earlier call to stop. Part of
    /// [`streams`](Self::streams).
    pub waiting_calls: usize,
    /// Handler: cancelled calls whose handlers have not been reported as stopped; see
    /// [`Connection::handler_done`](crate::Connection::handler_done).
    pub cancelled_handlers: usize,
    /// Refusals that wait to be sent.
    pub pending_refusals: usize,
    /// Streams that have existed on this tunnel.
    pub streams_total: u64,
    /// Message bytes sent.
    pub bytes_sent: u64,
    /// Message bytes received.
    pub bytes_received: u64,
    /// Messages of which sending has begun.
    pub messages_sent: u64,
    /// Messages of which the beginning was received.
    pub messages_received: u64,
    /// Streams that have data to send and no credit for it now.
    pub stalled_streams: usize,
    /// How often a stream had data to send and no credit for it.
    pub stalls: u64,
    /// For how long, as the sum over all streams until the last input or
    /// [`transmit`](crate::Connection::transmit).
    pub stalled: Duration,
    /// The last round-trip time measured by a heartbeat, time in queues included. `None` before the
    /// first, and with a peer that does not answer them.
    pub round_trip: Option<Duration>,
    /// The number of round-trip times measured.
    pub round_trips: u64,
    pub(crate) limits: LimitCounts,
}

impl Stats {
    /// How often a limit was reached.
    pub fn limit_reached(&self, limit: Limit) -> u64 {
        self.limits.0[limit as usize]
    }
}

/// How often each limit was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LimitCounts([u64; Limit::ALL.len()]);

impl LimitCounts {
    pub(crate) fn count(&mut self, limit: impl Into<Option<Limit>>) {
        if let Some(limit) = limit.into() {
            self.0[limit as usize] += 1;
        }
    }
}

/// A frame for a stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LateFrame {
    /// The beginning of a message, with this much of its payload.
    Message(usize),
    /// More of a message.
    More(usize),
    /// Anything else.
    Control,
}

/// All counters of a tunnel.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) streams: usize,
    pub(crate) streams_total: u64,
    pub(crate) unread: usize,
    /// Part of `unread`: on revision-zero streams, and not held.
    pub(crate) unwindowed_unread: usize,
    /// Whole messages on revision-zero streams.
    pub(crate) unwindowed_messages: usize,
    /// Empty messages unread.
    pub(crate) unread_empty: usize,
    pub(crate) spare_used: usize,
    pub(crate) queued: usize,
    /// Memory of received data beyond the unread payload; see `RecvHalf::overhead`.
    pub(crate) overhead: usize,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) stalls: Stalls,
    pub(crate) limits: LimitCounts,
    /// Bytes that may be in flight for streams that have ended.
    late_bytes: u64,
    /// Empty messages without a window cost that may be in flight for ended streams.
    late_empty: u64,
    /// The number of further frames for ended streams that are ignored, beyond those bytes.
    stray_frames: u64,
    empty_frames: usize,
    /// The round-trip time to the peer.
    pub(crate) round_trip: RoundTrip,
    /// Whether reading is paused for unread revision-zero data.
    pub(crate) paused: bool,
}

impl Counts {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            streams: 0,
            streams_total: 0,
            unread: 0,
            unwindowed_unread: 0,
            unwindowed_messages: 0,
            unread_empty: 0,
            spare_used: 0,
            queued: 0,
            overhead: 0,
            bytes_sent: 0,
            bytes_received: 0,
            messages_sent: 0,
            messages_received: 0,
            stalls: Stalls::default(),
            limits: LimitCounts::default(),
            late_bytes: 0,
            late_empty: 0,
            stray_frames: config.v.max_stray_frames as u64,
            empty_frames: 0,
            round_trip: RoundTrip::default(),
            paused: false,
        }
    }

    pub(crate) fn inc_streams(&mut self) {
        self.streams += 1;
        self.streams_total += 1;
    }

    pub(crate) fn dec_streams(&mut self) {
        debug_assert!(self.streams > 0, "a stream is counted until it is removed");
        self.streams -= 1;
    }

    /// The memory that the streams hold, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.unread + self.queued + self.overhead
    }

    /// The spare memory that is left, in bytes.
    pub(crate) fn spare_left(&self, config: &Config) -> usize {
        config.v.spare().saturating_sub(self.spare_used)
    }

    /// The number of bytes by which windows may grow: half of the spare memory. The rest is for
    /// large messages, which fail without memory; a window that does not grow is only slow.
    pub(crate) fn growth_left(&self, config: &Config) -> usize {
        (config.v.spare() / 2).saturating_sub(self.spare_used)
    }

    /// Allows for the frames that may be in flight for a stream that ends now: the rest of its
    /// window, if it has one, its window updates, empty messages where they cost no window, and
    /// some others.
    pub(crate) fn allow_late_frames(
        &mut self,
        window_left: Option<u64>,
        updates: u64,
        message_cost: u32,
    ) {
        let bytes = window_left.unwrap_or(UNWINDOWED_LATE_BYTES);
        self.late_bytes = self.late_bytes.saturating_add(bytes);
        if message_cost == 0 || window_left.is_none() {
            self.late_empty = self.late_empty.saturating_add(UNWINDOWED_LATE_MESSAGES);
        }
        self.stray_frames = self
            .stray_frames
            .saturating_add(updates)
            .saturating_add(LATE_CONTROL_FRAMES);
    }

    /// Counts a frame for a stream that has ended.
    pub(crate) fn late_frame(&mut self, frame: LateFrame, message_cost: u32) -> Result<(), Limit> {
        let allowed = match frame {
            LateFrame::Message(data) => {
                let cost = data as u64 + u64::from(message_cost);
                match cost {
                    0 => take(&mut self.late_empty, 1),
                    cost => take(&mut self.late_bytes, cost),
                }
            }
            LateFrame::More(data) => take(&mut self.late_bytes, data as u64),
            LateFrame::Control => false,
        };
        if allowed {
            return Ok(());
        }
        self.stray_frames = self.stray_frames.checked_sub(1).ok_or(Limit::StrayFrames)?;
        Ok(())
    }

    /// Counts a useless frame.
    pub(crate) fn empty_frame(&mut self, v: &Values) -> Result<(), Limit> {
        self.empty_frames += 1;
        if self.empty_frames > v.max_empty_frames {
            return Err(Limit::EmptyFrames);
        }
        Ok(())
    }

    /// Counts a useful frame, which gives back one useless and one late frame.
    pub(crate) fn useful_frame(&mut self) {
        self.empty_frames = self.empty_frames.saturating_sub(1);
        self.stray_frames = self.stray_frames.saturating_add(1);
    }

    /// Whether no stream is open and all counters of streams and bytes are zero.
    pub(crate) fn is_idle(&self) -> bool {
        let left = [
            self.streams,
            self.unread,
            self.unwindowed_unread,
            self.unwindowed_messages,
            self.unread_empty,
            self.spare_used,
            self.queued,
            self.overhead,
            self.stalls.active,
        ];
        left == [0; 9]
    }
}

/// Takes an amount from an allowance, if it is large enough.
fn take(left: &mut u64, cost: u64) -> bool {
    let after = left.checked_sub(cost);
    *left = after.unwrap_or(*left);
    after.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useful_frames_restore_the_allowance_for_useless_ones() {
        let config = Config::builder()
            .max_empty_frames(2)
            .build()
            .expect("valid");
        let mut counts = Counts::new(&config);
        for _ in 0..100 {
            assert_eq!(counts.empty_frame(&config.v), Ok(()));
            counts.useful_frame();
        }
        assert_eq!(counts.empty_frame(&config.v), Ok(()));
        assert_eq!(counts.empty_frame(&config.v), Ok(()));
        assert_eq!(counts.empty_frame(&config.v), Err(Limit::EmptyFrames));
    }
}
