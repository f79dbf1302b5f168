//! When those who are woken together run, and who waits for them.
//!
//! A call at one end is a chain of wake-ups: connection, driver, caller or handler, the transport's
//! writer, connection. Two things make them expensive. A tokio worker runs three tasks that woke
//! each other; the fourth it puts into its queue, and it wakes another worker to look there. And a
//! writer that is woken by the first of sixteen callers runs before the other fifteen, and again for
//! each of them.
//!
//! So the driver wakes readers, and the writer waits for more, by way of [`wake_later`]: when the
//! worker has run whoever is awake, it starts afresh, with all of them together and without a word
//! to others. That took unary calls one at a time from 0.9 of plain tonic to 1.35, their CPU time
//! from 1.1 to 0.75, 64 ping-pongs at once from 2.0 to 3.2, and a fifth of the system's calls for
//! each of 16 calls at once.
//!
//! It is harmless as long as tasks are quick. Where one works for long, whoever was put off waits
//! for it though another worker could run him, so this is measured: see [`Patience`].

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Wakes a task when the worker has run those that are awake already, or 61 of them, as tokio has
/// it.
pub(crate) fn wake_later(waker: &Waker) {
    let later = pin!(tokio::task::yield_now());
    if later.poll(&mut Context::from_waker(waker)).is_ready() {
        waker.wake_by_ref();
    }
}

/// Puts off as long as it takes no time: whoever once waited longer than [`LIMIT`] is not put off
/// the next [`REST`] times.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
    rest: u32,
}

/// As long as some hundred quick tasks take. Of sixteen calls at once some 50 µs are usual.
const LIMIT: Duration = Duration::from_micros(500);

/// One turn in so many may be slow.
const REST: u32 = 64;

impl Patience {
    /// Whether to put somebody off now.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        // Of several who were put off together, the first counts.
        self.since.get_or_insert(now);
        true
    }

    /// Whoever was put off runs. Says whether anybody was; otherwise nothing happens.
    pub(crate) fn end(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let Some(since) = self.since.take() else {
            return false;
        };
        if now().saturating_duration_since(since) > LIMIT {
            self.rest = REST;
        }
        true
    }
}

/// What the driver knows of what comes next.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Whether calls that come get a task each.
    spawns: bool,
    /// Whether what was read last had a call that gets one.
    opened: bool,
    /// How many frames were read together lately.
    together: usize,
    /// Of those who read streams.
    pub(crate) readers: Patience,
}

impl Pace {
    /// The driver has read so many frames together.
    pub(crate) fn read(&mut self, frames: usize, spawns: bool) {
        self.spawns = spawns;
        self.opened = false;
        // Between two large lots there may be a small one.
        self.together = frames.max(self.together - self.together / 4);
    }

    /// One of them was a call.
    pub(crate) fn opened(&mut self) {
        self.opened = self.spawns;
    }

    /// Whether a small batch is worth waiting for more: several streams are at work, or whoever
    /// runs is at the end of a chain.
    pub(crate) fn more_is_coming(&self) -> bool {
        /// A unary call's request and response have three frames each.
        const OF_ONE_CALL: usize = 3;
        self.opened || self.together > OF_ONE_CALL
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn whoever_is_woken_later_runs_after_those_who_are_awake() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |who: &'static str| {
            let order = order.clone();
            async move { order.lock().expect("not poisoned").push(who) }
        };
        let late = {
            let note = note("late");
            let mut waited = false;
            async move {
                poll_fn(|cx| match std::mem::replace(&mut waited, true) {
                    true => Poll::Ready(()),
                    false => {
                        wake_later(cx.waker());
                        Poll::Pending
                    }
                })
                .await;
                note.await;
            }
        };
        let late = tokio::spawn(late);
        let others = ["first", "second"].map(|who| tokio::spawn(note(who)));
        late.await.expect("does not panic");
        for other in others {
            other.await.expect("does not panic");
        }
        assert_eq!(
            *order.lock().expect("not poisoned"),
            ["first", "second", "late"]
        );
    }

    #[test]
    fn whoever_waited_long_is_not_put_off_for_a_while() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(patience.begin(start));
        patience.end(|| start + LIMIT);
        assert!(patience.begin(start));
        patience.end(|| start + LIMIT + Duration::from_micros(1));
        for turn in 0..REST {
            assert!(!patience.begin(start), "turn {turn}");
        }
        assert!(patience.begin(start));
    }

    #[test]
    fn the_first_of_those_who_wait_together_counts() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(patience.begin(start));
        assert!(patience.begin(start + LIMIT));
        patience.end(|| start + LIMIT + Duration::from_micros(1));
        assert!(!patience.begin(start + LIMIT));
        // Nobody waits any more.
        patience.end(|| unreachable!("nobody asks for the time"));
    }

    #[test]
    fn more_comes_after_a_new_call_with_a_task_and_after_reads_for_several() {
        let mut pace = Pace::default();
        pace.read(3, false);
        pace.opened();
        assert!(!pace.more_is_coming(), "one call, served inline");
        pace.read(3, true);
        pace.opened();
        assert!(pace.more_is_coming(), "one call with a task");
        pace.read(3, true);
        assert!(!pace.more_is_coming(), "messages of one stream");
        pace.read(30, true);
        pace.read(1, true);
        assert!(pace.more_is_coming(), "one of many");
        for _ in 0..20 {
            pace.read(1, true);
        }
        assert!(!pace.more_is_coming(), "one that was among many");
    }
}
