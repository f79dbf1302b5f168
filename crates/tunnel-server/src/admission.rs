//! How many tunnels are opened at once, and when those that are refused are told to come back.
//!
//! Decisions only: the time and the randomness are arguments, so that a simulation can run them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How long an opening counts after it was admitted, if its far end does not answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(1);

/// How long an opening takes, before one has ended.
const FIRST_GUESS: Duration = Duration::from_millis(50);

/// The weight of an opening in the average, as one of so many.
const WEIGHT: u32 = 8;

/// The shortest and the longest delay, before it is jittered.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The openings under way, and a queue of appointments for those that were refused.
///
/// A refused peer gets the next appointment: they are as far apart as openings were finished lately. So a
/// herd of peers returns as fast as it can be admitted, and each of them seldom more than a few times. The queue
/// has no entries: it is the time of its last appointment.
///
/// ```text
/// 100 at once, 20 ms each: 5,000 a second.
/// 20,000 come at once:    100 are admitted, the last one is told to come back in 4 s.
/// ```
///
/// Times are durations since any moment, and must not go backwards.
#[derive(Debug)]
pub struct Admission {
    max: usize,
    /// When the openings under way began.
    open: HashMap<u64, Duration>,
    /// Those that were admitted, and when; some have ended since.
    admitted: VecDeque<(u64, Duration)>,
    last_id: u64,
    /// How long openings take, on average.
    takes: Duration,
    last_appointment: Duration,
}

impl Admission {
    /// Admits this many openings at once, at least one.
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            open: HashMap::new(),
            admitted: VecDeque::new(),
            last_id: 0,
            takes: FIRST_GUESS,
            last_appointment: Duration::ZERO,
        }
    }

    /// Begins an opening, and returns its id.
    ///
    /// # Errors
    ///
    /// The time after which the peer should come back, if as many as allowed are under way. `random` is from 0 to
    /// 1.
    pub fn begin(&mut self, now: Duration, random: f64) -> Result<u64, Duration> {
        self.forget_silent(now);
        if self.open.len() >= self.max {
            return Err(self.pushback(now, random));
        }
        self.last_id += 1;
        self.open.insert(self.last_id, now);
        Ok(self.last_id)
    }

    /// The tunnel was admitted, and waits for its far end. That may take a second; a longer wait does not count.
    pub fn admitted(&mut self, id: u64, now: Duration) {
        self.admitted.push_back((id, now));
    }

    /// The tunnel has opened, or was not admitted.
    pub fn end(&mut self, id: u64, now: Duration) {
        if let Some(began) = self.open.remove(&id) {
            let took = now.saturating_sub(began);
            self.takes = (self.takes * (WEIGHT - 1) + took) / WEIGHT;
        }
    }

    /// The number of openings under way.
    pub fn under_way(&self) -> usize {
        self.open.len()
    }

    fn forget_silent(&mut self, now: Duration) {
        while let Some(&(id, admitted)) = self.admitted.front() {
            if self.open.contains_key(&id) && now < admitted + LONGEST_ANSWER {
                break;
            }
            self.admitted.pop_front();
            self.end(id, now);
        }
    }

    fn pushback(&mut self, now: Duration, random: f64) -> Duration {
        let apart = self.takes.div_f64(self.max as f64);
        let next = self.last_appointment.max(now) + apart;
        self.last_appointment = next.min(now + DELAYS.1);
        let delay = (next - now).clamp(DELAYS.0, DELAYS.1);
        delay.mul_f64(0.5 + random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MAX: usize = 100;
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Step {
        End(u64),
        Come(usize),
    }

    /// Lets a herd come at once. Returns when the last one was in, and the number of attempts.
    fn herd(devices: usize, opening: Duration) -> (Duration, usize) {
        let mut admission = Admission::new(MAX);
        let mut random = fastrand::Rng::with_seed(7);
        let mut steps: BTreeSet<_> = (0..devices)
            .map(|n| (Duration::ZERO, Step::Come(n)))
            .collect();
        let mut attempts = 0;
        let mut last = Duration::ZERO;
        while let Some((now, step)) = steps.pop_first() {
            match step {
                Step::End(id) => {
                    admission.end(id, now);
                    last = now;
                }
                Step::Come(n) => {
                    attempts += 1;
                    match admission.begin(now, random.f64()) {
                        Ok(id) => {
                            admission.admitted(id, now);
                            steps.insert((now + opening, Step::End(id)));
                        }
                        Err(later) => {
                            steps.insert((now + later, Step::Come(n)));
                        }
                    }
                    assert!(admission.under_way() <= MAX);
                }
            }
        }
        (last, attempts)
    }

    #[test]
    fn a_herd_is_admitted_about_as_fast_as_possible_with_few_attempts_each() {
        // 4 s and 60 s of work.
        for (devices, opening, ideal) in [(20_000, 20, 4.0), (60_000, 100, 60.0)] {
            let (last, attempts) = herd(devices, opening * MILLISECOND);
            let each = attempts as f64 / devices as f64;
            assert!(last.as_secs_f64() < 4.0 * ideal, "{last:?}");
            assert!(each < 4.0, "{each}");
        }
    }

    #[test]
    fn far_ends_that_never_answer_hold_a_place_for_a_second() {
        let mut admission = Admission::new(2);
        let hanging = admission.begin(Duration::ZERO, 0.5).expect("room");
        let silent = admission.begin(Duration::ZERO, 0.5).expect("room");
        admission.admitted(silent, MILLISECOND);
        assert!(admission.begin(LONGEST_ANSWER, 0.5).is_err());
        let next = LONGEST_ANSWER + MILLISECOND;
        assert!(admission.begin(next, 0.5).is_ok());
        // One whose hook has not decided holds its place for as long as that takes.
        assert!(admission.begin(next * 100, 0.5).is_err());
        // A late answer of the silent one changes nothing.
        admission.end(silent, next);
        assert_eq!(admission.under_way(), 2);
        admission.end(hanging, next);
        assert!(admission.begin(next, 0.5).is_ok());
    }

    #[test]
    fn a_delay_grows_with_the_queue_up_to_a_limit_and_shrinks_with_time() {
        let mut admission = Admission::new(1);
        let id = admission.begin(Duration::ZERO, 0.5).expect("room");
        let mut delay = |now| admission.begin(now, 0.5).expect_err("full");
        assert_eq!(delay(Duration::ZERO), DELAYS.0);
        let delays: Vec<_> = (0..2000).map(|_| delay(Duration::ZERO)).collect();
        assert!(delays.is_sorted());
        assert_eq!(delays.last(), Some(&DELAYS.1));
        assert_eq!(delay(DELAYS.1), DELAYS.0);
        admission.end(id, Duration::ZERO);
    }
}
