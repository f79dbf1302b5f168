//! A gateway that takes in the tunnels of another one: its processor, its limit on openings, and what it writes.

use std::collections::VecDeque;
use std::time::Duration;

use tunnel_server::Admission;

/// The CPU time of an opening, and what mutual TLS takes before it, also if it is refused: see docs/SCALE.md.
const OPENING: Duration = Duration::from_micros(94);
const HANDSHAKE: Duration = Duration::from_micros(221);

/// The TLS handshakes at once (`--max-handshakes`). Further connections wait in the backlog.
pub(super) const HANDSHAKES: usize = 256;

/// How long keys are collected for a transaction, and the most keys in one: as in `tunnel-fleet`.
const COLLECT: Duration = Duration::from_millis(20);
pub(super) const MAX_WRITES: usize = 60;

/// An attempt of a link to open a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempt {
    pub(super) link: usize,
    /// Which attempt of the link it is.
    pub(super) number: u32,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Connection(Attempt),
    /// With the id of the place under the limit.
    Opening(Attempt, Option<u64>),
}

/// What a piece of work has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is a connection, and the opening is under way.
    Connected,
    Refused(Attempt, Duration),
    Opened(Attempt),
}

/// A gateway that survived. One piece of work is done at a time.
#[derive(Debug)]
pub(super) struct Survivor {
    /// How much longer the work takes than on one core.
    slowness: f64,
    /// The cost of a connection.
    connection: Duration,
    admission: Option<Admission>,
    backlog: VecDeque<Attempt>,
    handshakes: usize,
    /// The first one is being done.
    work: VecDeque<Work>,
    pub(super) busy: Duration,
    pub(super) transactions: usize,
    collected: (Duration, usize),
}

impl Survivor {
    /// Opens this number of tunnels in a second, `max` of them at once.
    pub(super) fn new(rate: f64, max: Option<usize>, tls: bool) -> Self {
        let connection = if tls { HANDSHAKE } else { Duration::ZERO };
        Self {
            slowness: 1.0 / (rate * (connection + OPENING).as_secs_f64()),
            connection,
            admission: max.map(Admission::new),
            backlog: VecDeque::new(),
            handshakes: 0,
            work: VecDeque::new(),
            busy: Duration::ZERO,
            transactions: 0,
            collected: (Duration::ZERO, 0),
        }
    }

    /// A connection arrives. Returns how long the next piece of work takes, if there was none.
    pub(super) fn arrive(&mut self, attempt: Attempt) -> Option<Duration> {
        let was_idle = self.work.is_empty();
        self.backlog.push_back(attempt);
        self.accept(|_| true);
        was_idle.then(|| self.begin()).flatten()
    }

    /// The piece of work is done. Returns what it has led to, and how long the next piece takes. Connections that
    /// nobody waits for any more are not accepted.
    pub(super) fn done(
        &mut self,
        now: Duration,
        random: f64,
        waits: impl Fn(Attempt) -> bool,
    ) -> (Option<Outcome>, Option<Duration>) {
        let outcome = self.work.pop_front().map(|work| match work {
            Work::Connection(attempt) => {
                self.handshakes -= 1;
                self.open(attempt, now, random)
            }
            Work::Opening(attempt, place) => {
                if let (Some(admission), Some(place)) = (&mut self.admission, place) {
                    admission.end(place, now);
                }
                self.write(now);
                Outcome::Opened(attempt)
            }
        });
        self.accept(waits);
        (outcome, self.begin())
    }

    fn accept(&mut self, waits: impl Fn(Attempt) -> bool) {
        while self.handshakes < HANDSHAKES
            && let Some(attempt) = self.backlog.pop_front()
        {
            if waits(attempt) {
                self.handshakes += 1;
                self.work.push_back(Work::Connection(attempt));
            }
        }
    }

    fn open(&mut self, attempt: Attempt, now: Duration, random: f64) -> Outcome {
        let place = match &mut self.admission {
            None => None,
            Some(admission) => match admission.begin(now, random) {
                Ok(place) => {
                    admission.admitted(place, now);
                    Some(place)
                }
                Err(later) => return Outcome::Refused(attempt, later),
            },
        };
        self.work.push_back(Work::Opening(attempt, place));
        Outcome::Connected
    }

    /// Begins the next piece of work. Returns how long it takes.
    fn begin(&mut self) -> Option<Duration> {
        let cost = match self.work.front()? {
            Work::Connection(_) => self.connection,
            Work::Opening(..) => OPENING,
        };
        self.busy += cost;
        Some(cost.mul_f64(self.slowness))
    }

    /// Puts a key into the transaction that is collected, or into a new one.
    fn write(&mut self, now: Duration) {
        let (until, keys) = self.collected;
        self.collected = match now <= until {
            true if keys < MAX_WRITES => (until, keys + 1),
            // What does not fit follows at once.
            same => {
                self.transactions += 1;
                (if same { until } else { now + COLLECT }, 1)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(link: usize) -> Attempt {
        Attempt { link, number: 1 }
    }

    #[test]
    fn a_gateway_opens_as_many_tunnels_in_a_second_as_it_should() {
        let mut survivor = Survivor::new(1000.0, None, true);
        let mut next = None;
        for link in 0..1000 {
            next = next.or(survivor.arrive(attempt(link)));
        }
        let (mut now, mut opened) = (Duration::ZERO, 0);
        while let Some(takes) = next {
            now += takes;
            let (outcome, more) = survivor.done(now, 0.5, |_| true);
            opened += usize::from(matches!(outcome, Some(Outcome::Opened(_))));
            next = more;
        }
        assert_eq!(opened, 1000);
        assert!((now.as_secs_f64() - 1.0).abs() < 0.001, "{now:?}");
        assert!(survivor.busy.abs_diff(1000 * (HANDSHAKE + OPENING)) < Duration::from_millis(1));
    }

    #[test]
    fn openings_over_the_limit_are_refused_after_their_handshake() {
        let mut survivor = Survivor::new(1000.0, Some(1), true);
        assert!(survivor.arrive(attempt(1)).is_some());
        assert!(survivor.arrive(attempt(2)).is_none(), "it is busy");
        let mut done = || survivor.done(Duration::ZERO, 0.5, |_| true).0;
        assert_eq!(done(), Some(Outcome::Connected));
        assert!(matches!(done(), Some(Outcome::Refused(refused, _)) if refused == attempt(2)));
        assert_eq!(done(), Some(Outcome::Opened(attempt(1))));
        assert_eq!(done(), None);
    }

    #[test]
    fn keys_are_written_together() {
        let mut survivor = Survivor::new(1000.0, None, true);
        for key in 0..100 {
            survivor.write(key * Duration::from_micros(100));
        }
        assert_eq!(survivor.transactions, 2);
        survivor.write(Duration::from_secs(1));
        assert_eq!(survivor.transactions, 3);
    }
}
