//! Flow control: all window arithmetic, checked for overflow.
//!
//! Windows count message bytes of one stream in one direction. Positions are
//! absolute (bytes since the stream began, 64 bit, so they cannot wrap);
//! windows are differences of positions and never exceed [`MAX_WINDOW`].

use std::time::{Duration, Instant};

use super::queue::Queue;
use crate::config::MAX_WINDOW;

/// The number of superseded limits that are remembered. A window is usually granted in four to
/// eight batches; one that is granted in many small batches may miss a chance to grow.
const MAX_SUPERSEDED: usize = 16;

/// Bytes of credit, at most [`MAX_WINDOW`]. The arithmetic cannot wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Window(u32);

impl Window {
    /// A window, or `None` if it would be too large.
    pub(crate) fn new(size: u32) -> Option<Self> {
        (size <= MAX_WINDOW).then_some(Self(size))
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }

    /// The window with more credit, or `None` if it would be too large.
    pub(crate) fn checked_add(self, credit: u32) -> Option<Self> {
        self.0.checked_add(credit).and_then(Self::new)
    }

    /// The window reduced by `used`, or `None` if it is smaller than that.
    pub(crate) fn checked_sub(self, used: u32) -> Option<Self> {
        self.0.checked_sub(used).map(Self)
    }
}

/// The credit of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    /// Revision zero: only the transport limits the sender.
    Unlimited,
    /// Revision one.
    Limited(Window),
}

impl Credit {
    /// The number of the `wanted` bytes that may be sent now.
    pub(crate) fn available(self, wanted: usize) -> usize {
        match self {
            Self::Unlimited => wanted,
            Self::Limited(w) => wanted.min(w.get() as usize),
        }
    }

    /// Spends what [`available`](Self::available) allowed.
    pub(crate) fn spend(&mut self, bytes: usize) {
        if let Self::Limited(w) = self {
            let left = u32::try_from(bytes).ok().and_then(|b| w.checked_sub(b));
            debug_assert!(left.is_some(), "a sender never exceeds its window");
            *w = left.unwrap_or_default();
        }
    }

    /// Adds credit that the peer granted; `false` if the window would be too large.
    pub(crate) fn add(&mut self, credit: u32) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Limited(w) => match w.checked_add(credit) {
                Some(sum) => {
                    *w = sum;
                    true
                }
                None => false,
            },
        }
    }
}

/// How much of a window must have been read before credit is returned.
///
/// A quarter while the window has its first size, an eighth once it has grown: the sender cannot
/// use the credit that waits for its batch. `docs/PERFORMANCE.md` has the measurements.
fn batch(size: u32, initial: u32) -> u32 {
    let part = if size <= initial { size / 4 } else { size / 8 };
    part.max(1)
}

/// The factor of one growth of a window.
const GROWTH: u32 = 4;

/// How large a window may grow on a link with any round-trip time, in bytes.
///
/// A larger window than the link needs fills the transport's buffers, and small frames of other
/// streams wait behind it. `docs/PERFORMANCE.md` has the measurements.
const SHORT_LINK_WINDOW: u32 = 512 << 10;

/// How many bytes a link may carry in a microsecond: 1 GB/s. A window is never larger than the
/// bytes that arrive at this rate in one round trip.
const FASTEST: u64 = 1 << 10;

/// The round-trip time to the peer: the shortest of all samples, since each sample also contains
/// time spent in queues.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip(Option<Duration>);

impl RoundTrip {
    /// Takes a sample into account.
    pub(crate) fn sample(&mut self, sample: Duration) {
        if self.0.is_none_or(|shortest| sample < shortest) {
            self.0 = Some(sample);
        }
    }

    /// The largest window that can make a stream faster. Before the first sample the link is
    /// assumed to be short.
    pub(crate) fn useful_window(&self) -> u32 {
        let micros = self.0.map_or(0, |shortest| shortest.as_micros());
        let bytes = u64::try_from(micros).map_or(u64::MAX, |m| m.saturating_mul(FASTEST));
        u32::try_from(bytes).map_or(u32::MAX, |b| b.max(SHORT_LINK_WINDOW))
    }
}

/// The window of a receiver: the credit that it has granted and may still grant.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    initial: u32,
    /// The present size of the window. It grows and never shrinks.
    size: u32,
    /// How many bytes have arrived.
    received: u64,
    /// How many of them the application has not finished reading.
    untaken: u32,
    /// How many more bytes the peer may send. Together with `untaken` at most `size`.
    remaining: u32,
    /// Earlier limits that received data has not passed yet. A sender that stops exactly at one of
    /// them was held back by the window.
    superseded: Queue<u64>,
    /// A raised limit and the time of its raise; kept until received data has passed it.
    raised: Option<Box<(u64, Instant)>>,
}

impl RecvWindow {
    pub(crate) fn new(initial: u32) -> Self {
        Self {
            initial,
            size: initial,
            received: 0,
            untaken: 0,
            remaining: initial,
            superseded: Queue::default(),
            raised: None,
        }
    }

    /// The window's present size, in bytes.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// The growth of the window beyond its initial size, in bytes.
    pub(crate) fn growth(&self) -> u32 {
        self.size - self.initial
    }

    /// How many bytes the peer may still send with its present credit.
    pub(crate) fn remaining(&self) -> u64 {
        u64::from(self.remaining)
    }

    /// Counts received bytes. Returns `false` if they exceed the granted credit.
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).ok();
        let Some((bytes, left)) = bytes.and_then(|b| Some((b, self.remaining.checked_sub(b)?)))
        else {
            return false;
        };
        self.remaining = left;
        self.untaken += bytes;
        self.received += u64::from(bytes);
        let received = self.received;
        while self.superseded.front().is_some_and(|&l| l < received) {
            self.superseded.pop_front();
        }
        true
    }

    /// Counts bytes that the application has finished reading.
    pub(crate) fn take(&mut self, bytes: usize) {
        let left = u32::try_from(bytes)
            .ok()
            .and_then(|b| self.untaken.checked_sub(b));
        debug_assert!(left.is_some(), "no more is read than has arrived");
        self.untaken = left.unwrap_or_default();
    }

    /// How much credit could be returned now.
    fn ungranted(&self) -> u32 {
        self.size.saturating_sub(self.untaken + self.remaining)
    }

    /// The position up to which the peer may send.
    fn limit(&self) -> u64 {
        self.received + u64::from(self.remaining)
    }

    /// Whether the sender has no credit and can be granted none.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.remaining() == 0 && self.ungranted() == 0
    }

    /// Whether to return credit now: a batch has gathered, or the sender has less credit than it
    /// needs for the rest of a message and less than for a full chunk.
    pub(crate) fn is_due(&self, message_left: u32) -> bool {
        let ungranted = self.ungranted();
        if ungranted == 0 {
            return false;
        }
        let remaining = self.remaining();
        let may_stall =
            u64::from(message_left) > remaining && remaining < crate::frame::MAX_CHUNK_SIZE as u64;
        ungranted >= batch(self.size, self.initial) || may_stall
    }

    /// The time from a grant to the first byte that could not have been sent without it. A round
    /// trip takes no longer. Call it when data has arrived.
    pub(crate) fn round_trip(&mut self, now: Instant) -> Option<Duration> {
        let passed = self.raised.take_if(|raised| raised.0 < self.received)?;
        Some(now.saturating_duration_since(passed.1))
    }

    /// Grants all credit that can be granted and returns the increment; may be zero.
    pub(crate) fn grant(&mut self, now: Instant) -> u32 {
        let increment = self.ungranted();
        let limit = self.limit();
        if increment > 0 {
            if self.superseded.len() < MAX_SUPERSEDED {
                self.superseded.push_back(limit);
            }
            self.raised.get_or_insert_with(|| Box::new((limit, now)));
            self.remaining += increment;
        }
        increment
    }

    /// Whether the window limits the sender. Call it when the reader has read everything and waits.
    ///
    /// It does if the sender has stopped exactly at a limit that was raised since, because the
    /// grant had not reached it. With message credit, the sender stops where the next message does
    /// not fit. The answer is yes at most once for each growth. No clock is needed.
    pub(crate) fn holds_back_sender(&self, message_cost: u8) -> bool {
        let limit = self.superseded.front();
        limit.is_some_and(|limit| limit - self.received <= u64::from(message_cost))
    }

    /// Lets the window grow by at most `spare` bytes towards `max`. Returns the growth.
    pub(crate) fn grow(&mut self, max: u32, spare: usize) -> u32 {
        self.superseded.clear();
        let wanted = self.size.saturating_mul(GROWTH).min(max);
        let wanted = wanted.saturating_sub(self.size);
        let growth = wanted.min(u32::try_from(spare).unwrap_or(u32::MAX));
        self.size += growth;
        growth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_never_exceed_their_cap_nor_go_below_zero() {
        assert_eq!(Window::new(MAX_WINDOW + 1), None);
        let full = Window::new(MAX_WINDOW).expect("the cap itself is allowed");
        assert_eq!(full.checked_add(1), None);
        assert_eq!(full.checked_add(u32::MAX), None);
        assert_eq!(Window(3).checked_sub(4), None);
        let mut credit = Credit::Limited(full);
        assert!(!credit.add(1));
        credit.spend(10);
        assert!(credit.add(10));
    }

    #[test]
    fn credit_is_used_to_the_byte() {
        let mut credit = Credit::Limited(Window(10));
        assert_eq!(credit.available(7), 7);
        credit.spend(7);
        assert_eq!(credit.available(7), 3);
        credit.spend(3);
        assert_eq!(credit.available(7), 0);
        assert_eq!(Credit::Unlimited.available(7), 7);
    }

    #[test]
    fn data_beyond_the_granted_limit_is_noticed_to_the_byte() {
        let now = Instant::now();
        let mut w = RecvWindow::new(100);
        assert!(w.receive(100));
        assert!(!w.receive(1));
        w.take(100);
        assert_eq!(w.grant(now), 100);
        assert!(w.receive(100));
        assert!(!w.receive(1));
    }

    #[test]
    fn credit_is_returned_in_quarters_and_in_eighths_once_grown() {
        let now = Instant::now();
        let mut w = RecvWindow::new(65_536);
        assert!(w.receive(65_536));
        w.take(16_383);
        assert!(!w.is_due(0));
        w.take(1);
        assert!(w.is_due(0));
        assert_eq!(w.grant(now), 16_384);
        assert!(!w.is_due(0));
        assert_eq!(w.grow(1 << 20, usize::MAX), 3 * 65_536);
        assert_eq!(w.grant(now), 3 * 65_536, "growth is granted at once");
        w.take(32_767);
        assert!(!w.is_due(0));
        w.take(1);
        assert!(w.is_due(0), "an eighth of 256 KiB");
    }

    #[test]
    fn a_round_trip_is_the_shortest_time_from_a_grant_to_what_it_allowed() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut w = RecvWindow::new(100);
        assert!(w.receive(50));
        w.take(50);
        assert_eq!(w.round_trip(at(0)), None);
        assert_eq!(w.grant(at(10)), 50);
        assert!(w.receive(50));
        assert_eq!(w.round_trip(at(15)), None, "it was allowed before");
        w.take(50);
        assert_eq!(w.grant(at(20)), 50);
        assert!(w.receive(1));
        assert_eq!(w.round_trip(at(40)), Some(Duration::from_millis(30)));
        assert_eq!(w.round_trip(at(50)), None, "once");
    }

    #[test]
    fn a_window_is_as_large_as_a_fast_link_of_that_length_can_use() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.useful_window(), SHORT_LINK_WINDOW);
        round_trip.sample(Duration::MAX);
        assert_eq!(round_trip.useful_window(), u32::MAX);
        for (sample, window) in [
            (20_000, 20_000 << 10),
            (1_000, 1_000 << 10),
            (100, SHORT_LINK_WINDOW),
        ] {
            round_trip.sample(Duration::from_micros(sample));
            assert_eq!(round_trip.useful_window(), window);
        }
        round_trip.sample(Duration::from_secs(1));
        assert_eq!(
            round_trip.useful_window(),
            SHORT_LINK_WINDOW,
            "the shortest counts"
        );
    }

    #[test]
    fn a_sender_that_may_stall_inside_a_message_gets_its_credit_at_once() {
        let mut w = RecvWindow::new(65_536);
        assert!(w.receive(60_000));
        w.take(10);
        assert!(!w.is_due(5_000), "what is left of the message fits");
        assert!(w.is_due(6_000), "it does not fit");
        assert!(!w.is_due(0));
    }

    #[test]
    fn a_window_grows_only_when_the_sender_stopped_at_a_limit_since_raised() {
        let now = Instant::now();
        let mut w = RecvWindow::new(100);
        assert!(!w.holds_back_sender(0));
        assert!(w.receive(100));
        w.take(100);
        assert!(!w.holds_back_sender(0), "nothing was granted yet");
        assert_eq!(w.grant(now), 100);
        assert!(
            w.holds_back_sender(0),
            "it stopped at 100, and 200 is under way"
        );
        assert_eq!(w.grow(150, usize::MAX), 50, "not beyond the cap");
        assert!(!w.holds_back_sender(0), "once for each growth");
        assert_eq!(w.grant(now), 50);
        assert!(w.receive(1));
        w.take(1);
        assert!(!w.holds_back_sender(0), "it is past the old limit");
        assert_eq!(w.grow(1000, 0), 0, "not beyond the budget");
    }

    #[test]
    fn however_small_the_grants_few_limits_are_remembered() {
        let now = Instant::now();
        let mut w = RecvWindow::new(10_000);
        assert!(w.receive(10_000));
        for _ in 0..5000 {
            w.take(1);
            assert_eq!(w.grant(now), 1);
        }
        assert_eq!(w.superseded.len(), MAX_SUPERSEDED);
        assert!(w.holds_back_sender(0), "the first of them counts");
    }

    #[test]
    fn the_sum_of_unread_and_grantable_bytes_never_exceeds_the_window() {
        let now = Instant::now();
        let mut w = RecvWindow::new(1000);
        for step in 1..200u64 {
            let arriving = (w.remaining() as usize).min((step * 37 % 300) as usize);
            assert!(w.receive(arriving));
            let unread = w.untaken as usize;
            w.take(unread.min((step * 53 % 250) as usize));
            if w.is_due(0) {
                w.grant(now);
            }
            assert!(w.untaken + w.remaining <= w.size);
            assert!(w.superseded.len() <= 8);
        }
    }
}
