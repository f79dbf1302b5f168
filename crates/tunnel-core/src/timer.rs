//! Timers and deadlines. Time is an argument; nothing here reads a clock.
//!
//! Invariant: the end of a call removes its timer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::Metadata;

/// The timers of the tunnel itself, one of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// When a caller gives up waiting for settings.
    Settings = 0,
    /// When a drain ends the calls that are still in flight.
    Drain = 1,
    /// When reading was paused for revision zero for too long.
    UnreadStall = 2,
    /// When the peer has not read its refusals for too long.
    RefusalStall = 3,
    /// When to send a heartbeat, or to end the tunnel of a silent peer. It fires only when
    /// everything received was handled, see
    /// [`Connection::handle_timeout`](crate::Connection::handle_timeout).
    Liveness = 4,
    /// When the next cancel may be sent to a peer that limits them.
    Cancels = 5,
    /// When a drained tunnel stops refusing calls of a peer without drain notices.
    Linger = 6,
}

impl Timer {
    const ALL: [Self; 7] = [
        Self::Settings,
        Self::Drain,
        Self::UnreadStall,
        Self::RefusalStall,
        Self::Linger,
        Self::Liveness,
        Self::Cancels,
    ];
}

/// All timers of a tunnel: one slot for each [`Timer`], and the deadlines of calls.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    slots: [Option<Instant>; Timer::ALL.len()],
    /// The earliest of the slots, cached because every frame reads it.
    earliest: Option<Instant>,
    deadlines: BTreeSet<(Instant, i64)>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.put(timer, Some(at));
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.put(timer, None);
    }

    fn put(&mut self, timer: Timer, at: Option<Instant>) {
        self.slots[timer as usize] = at;
        self.earliest = self.slots.iter().copied().flatten().min();
    }

    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        self.slots[timer as usize]
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.slots[timer as usize].is_some()
    }

    pub(crate) fn add_deadline(&mut self, at: Instant, id: i64) {
        self.deadlines.insert((at, id));
    }

    pub(crate) fn remove_deadline(&mut self, at: Instant, id: i64) {
        self.deadlines.remove(&(at, id));
    }

    pub(crate) fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }

    /// The earliest time at which a timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        self.earliest.into_iter().chain(deadline).min()
    }

    /// Takes one tunnel timer that is due, with its time. Takes [`Timer::Liveness`] only if asked
    /// to.
    pub(crate) fn pop_due(&mut self, now: Instant, liveness: bool) -> Option<(Timer, Instant)> {
        let (timer, at) = Timer::ALL.into_iter().find_map(|timer| {
            let wanted = liveness || timer != Timer::Liveness;
            let at = self.slots[timer as usize].filter(|&at| at <= now && wanted)?;
            Some((timer, at))
        })?;
        self.clear(timer);
        Some((timer, at))
    }

    /// Takes the id of one call whose deadline has passed.
    pub(crate) fn pop_expired_call(&mut self, now: Instant) -> Option<i64> {
        let &(at, id) = self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.deadlines.pop_first();
        Some(id)
    }

    pub(crate) fn clear_all(&mut self) {
        *self = Self::default();
    }
}

/// Reads a `grpc-timeout` value: at most eight digits and a unit (H, M, S, m, u, n), as the
/// gRPC specification has it. A negative value reads as zero, which has already expired.
///
/// Returns `None` for anything else; such a header is ignored, as tonic ignores it.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(tunnel_core::parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
/// assert_eq!(tunnel_core::parse_grpc_timeout("-1S"), Some(Duration::ZERO));
/// assert_eq!(tunnel_core::parse_grpc_timeout("soon"), None);
/// ```
pub fn parse_grpc_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().next_back()?;
    let digits = &value[..value.len() - unit.len_utf8()];
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    let timeout = match unit {
        'H' => Duration::from_secs(n * 3600),
        'M' => Duration::from_secs(n * 60),
        'S' => Duration::from_secs(n),
        'm' => Duration::from_millis(n),
        'u' => Duration::from_micros(n),
        'n' => Duration::from_nanos(n),
        _ => return None,
    };
    Some(if negative { Duration::ZERO } else { timeout })
}

/// The timeout in a call's metadata. The case of its key does not matter.
pub(crate) fn timeout_of(headers: &Metadata) -> Option<Duration> {
    let mut entries = headers.iter();
    let (_, value) = entries.find(|(key, _)| key.eq_ignore_ascii_case("grpc-timeout"))?;
    parse_grpc_timeout(value)
}

/// Writes a duration as the value of `grpc-timeout`: at most eight digits and a unit, as
/// precise as they allow, rounded down. The longest timeout is 99,999,999 seconds.
pub fn format_grpc_timeout(left: Duration) -> String {
    const LIMIT: u128 = 100_000_000;
    match left {
        _ if left.as_micros() < LIMIT => format!("{}u", left.as_micros()),
        _ if left.as_millis() < LIMIT => format!("{}m", left.as_millis()),
        _ => format!("{}S", left.as_secs().min(LIMIT as u64 - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_written_so_that_it_reads_the_same() {
        for left in [
            Duration::ZERO,
            Duration::from_micros(99_999_999),
            Duration::from_millis(100_000),
            Duration::from_millis(99_999_999),
            Duration::from_secs(100_000),
            Duration::from_secs(99_999_999),
        ] {
            assert_eq!(parse_grpc_timeout(&format_grpc_timeout(left)), Some(left));
        }
        let years = format_grpc_timeout(Duration::from_secs(u64::MAX));
        assert_eq!(years, "99999999S");
    }

    #[test]
    fn grpc_timeouts_follow_the_specification() {
        let cases = [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("4m", Some(4_000_000)),
            ("5u", Some(5_000)),
            ("6n", Some(6)),
            ("0S", Some(0)),
            ("-7S", Some(0)),
            ("99999999H", Some(99_999_999 * 3_600_000_000_000u128)),
            ("100000000S", None),
            ("", None),
            ("S", None),
            ("-S", None),
            ("+1S", None),
            ("1", None),
            ("1s", None),
            ("1 S", None),
            ("1ß", None),
            ("--1S", None),
        ];
        for (text, nanos) in cases {
            let parsed = parse_grpc_timeout(text).map(|d| d.as_nanos());
            assert_eq!(parsed, nanos, "{text:?}");
        }
    }

    #[test]
    fn a_timeout_is_found_with_any_case_of_its_key() {
        for key in ["grpc-timeout", "Grpc-Timeout", "GRPC-TIMEOUT"] {
            let md: Metadata = [("other", "1H"), (key, "4m")].into_iter().collect();
            assert_eq!(timeout_of(&md), Some(Duration::from_millis(4)));
        }
    }

    #[test]
    fn the_next_timeout_is_the_earliest_and_removal_leaves_nothing() {
        let t0 = Instant::now();
        let at = |s| t0 + Duration::from_secs(s);
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::Drain, at(5));
        timers.add_deadline(at(3), 7);
        timers.add_deadline(at(3), 8);
        assert_eq!(timers.next(), Some(at(3)));
        timers.remove_deadline(at(3), 7);
        assert_eq!(timers.pop_expired_call(at(2)), None);
        assert_eq!(timers.pop_expired_call(at(3)), Some(8));
        assert_eq!(timers.pop_expired_call(at(9)), None);
        assert_eq!(timers.pop_due(at(4), true), None);
        assert_eq!(timers.pop_due(at(5), true), Some((Timer::Drain, at(5))));
        timers.set(Timer::Liveness, at(6));
        assert_eq!(timers.pop_due(at(7), false), None);
        assert_eq!(timers.pop_due(at(7), true), Some((Timer::Liveness, at(6))));
        assert_eq!(timers.next(), None);
    }
}
