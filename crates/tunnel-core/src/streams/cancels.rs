//! Caller: pacing of cancels.
//!
//! Versions of this library before 0.1.0 end a tunnel whose caller cancels too fast (4,096 at once, or
//! about 500 a second). Towards them cancels are delayed. A call whose cancel is delayed counts as in
//! flight, so that new calls wait too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of cancels that may be sent at once to a peer that limits them.
const BURST: u32 = 2048;

/// The time until a sent cancel no longer counts.
const INTERVAL: Duration = Duration::from_micros(2500);

/// The cancels that wait to be sent, at most one for each stream that the peer knows.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    queue: VecDeque<i64>,
    pace: Option<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    /// When no sent cancel counts any more.
    clear_at: Option<Instant>,
    held: bool,
}

impl Cancels {
    /// Paces cancels, for a peer that limits them.
    pub(crate) fn pace(&mut self) {
        self.pace = Some(Pace::default());
    }

    pub(crate) fn push(&mut self, id: i64) {
        self.queue.push_back(id);
    }

    /// The number of cancels that may be sent now.
    pub(crate) fn ready(&self) -> usize {
        match &self.pace {
            Some(pace) if pace.held => 0,
            _ => self.queue.len(),
        }
    }

    /// The number of delayed cancels, whose calls count as in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.queue.len() - self.ready()
    }

    /// Takes the next cancel to send. `Err` is the time at which to continue.
    pub(crate) fn pop(&mut self, now: Instant) -> Result<Option<i64>, Instant> {
        if self.ready() == 0 {
            return Ok(None);
        }
        if let Some(pace) = &mut self.pace {
            let clear_at = pace.clear_at.map_or(now, |at| at.max(now)) + INTERVAL;
            if clear_at > now + INTERVAL * BURST {
                pace.held = true;
                return Err(clear_at - INTERVAL * BURST);
            }
            pace.clear_at = Some(clear_at);
        }
        Ok(self.queue.pop_front())
    }

    /// Allows further cancels; called when the timer is due.
    pub(crate) fn release(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.held = false;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_burst_recovers_without_losing_fractions_of_time() {
        let start = Instant::now();
        let mut cancels = Cancels::default();
        cancels.pace();
        (0..10_000).for_each(|id| cancels.push(id));
        let mut sent = 0;
        let mut held = 0;
        let mut now = start;
        while cancels.in_flight() + cancels.ready() > 0 {
            match cancels.pop(now) {
                Ok(Some(_)) => sent += 1,
                Ok(None) => panic!("one is ready"),
                Err(at) => {
                    assert_eq!(cancels.ready(), 0);
                    // The timer fires late by odd amounts, which must not slow the pace.
                    now = at + Duration::from_micros(777);
                    cancels.release();
                    held += 1;
                }
            }
            let passed = (now - start).as_nanos() / INTERVAL.as_nanos();
            assert!(sent <= u128::from(BURST) + passed, "{sent}");
        }
        let all = (10_000 - u128::from(BURST)) * INTERVAL.as_nanos();
        assert!(
            (now - start).as_nanos() < all + INTERVAL.as_nanos(),
            "no fraction is lost"
        );
        assert!(held > 5000, "{held}");
    }

    #[test]
    fn without_a_pace_all_cancels_are_sent_at_once_and_none_counts() {
        let mut cancels = Cancels::default();
        (0..10_000).for_each(|id| cancels.push(id));
        assert_eq!((cancels.ready(), cancels.in_flight()), (10_000, 0));
        let now = Instant::now();
        let sent = std::iter::from_fn(|| cancels.pop(now).expect("none is held"));
        assert_eq!(sent.count(), 10_000);
    }
}
