//! Stalls: the time for which streams have data to send and no credit for it.

use std::time::{Duration, Instant};

/// The stalls of a tunnel: their number, and the sum of their times.
///
/// Operations of the application carry no time. A stall that one of them finds is new, and its time
/// begins at the next [`advance`](Self::advance).
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// The number of stalled streams.
    pub(crate) active: usize,
    /// How many of them have begun since the last time that is known.
    new: usize,
    /// The number of stalls so far.
    pub(crate) total: u64,
    /// The sum of the times of all stalls until `at`.
    pub(crate) time: Duration,
    at: Option<Instant>,
}

impl Stalls {
    /// Notes whether a stream is stalled. `before` is what was noted of the stream last.
    pub(crate) fn set(&mut self, before: &mut bool, stalled: bool) {
        match (std::mem::replace(before, stalled), stalled) {
            (false, true) => {
                self.active += 1;
                self.new += 1;
                self.total += 1;
            }
            (true, false) => {
                self.active -= 1;
                self.new = self.new.min(self.active);
            }
            _ => {}
        }
    }

    /// Whether a stall has begun whose time is not known.
    pub(crate) fn has_new(&self) -> bool {
        self.new > 0
    }

    /// Takes the time, which never goes backwards.
    pub(crate) fn advance(&mut self, now: Instant) {
        if self.active == 0 {
            return;
        }
        if let Some(at) = self.at {
            let stalled = u32::try_from(self.active - self.new).unwrap_or(u32::MAX);
            let passed = now.saturating_duration_since(at);
            self.time = self.time.saturating_add(passed.saturating_mul(stalled));
        }
        self.new = 0;
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_overlapping_stalls_add_up() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let (mut stalls, mut a, mut b) = (Stalls::default(), false, false);
        stalls.advance(at(0));
        stalls.set(&mut a, true);
        stalls.set(&mut a, true);
        assert!(stalls.has_new());
        stalls.advance(at(10)); // It begins now.
        stalls.advance(at(12));
        stalls.set(&mut b, true);
        stalls.advance(at(13)); // The second one begins now.
        stalls.advance(at(15));
        assert_eq!((stalls.total, stalls.active), (2, 2));
        assert_eq!(stalls.time, Duration::from_secs(2 + 1 + 2 * 2));
        stalls.set(&mut a, false);
        stalls.set(&mut b, false);
        stalls.advance(at(99));
        stalls.set(&mut a, true);
        stalls.advance(at(100));
        stalls.advance(at(101));
        assert_eq!((stalls.total, stalls.active), (3, 1));
        assert_eq!(stalls.time, Duration::from_secs(8));
    }
}
