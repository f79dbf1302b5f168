//! The time between attempts to open a tunnel.
//!
//! Decisions only, so that a simulation can run them: randomness is an argument.

use std::time::Duration;

use super::status::{DownReason, Pushback};

/// The longest wait with any settings.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The time that a [`ReverseTunnelServer`](crate::ReverseTunnelServer) or a
/// [`ForwardChannel`](crate::ForwardChannel) waits between attempts to open a tunnel.
///
/// The backoff is exponential with full jitter. The step doubles from [`initial`](Self::initial) to
/// [`cap`](Self::cap), and each wait is drawn evenly between zero and the step, so that devices
/// that lost their gateway at the same moment do not return at the same moment. A tunnel that was
/// open for [`healthy_after`](Self::healthy_after) resets the step.
///
/// Lasting refusals (UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT, UNIMPLEMENTED) do not
/// change the step. They are retried after between half of [`refused_cap`](Self::refused_cap) and
/// all of it.
///
/// A gateway can tell over how long its devices should spread their return (`return_spread` of
/// `tunnel-server`). After a tunnel to it was lost, the first attempt is made at a random time within that spread,
/// of which at most ten minutes are believed; if another tunnel of the device takes calls, within ten times the
/// spread, at most an hour. Later attempts are made as above.
///
/// After a drain by the gateway the first attempt is made at once, unless the drained tunnel and
/// the one before it were both younger than `healthy_after`. A gateway that drains all its tunnels can tell a time
/// within which the attempt is made; of it, ten minutes are believed too. While calls wait for a forward tunnel,
/// the wait is at most the first step, except after a refusal. A refusal with
/// `grpc-retry-pushback-ms` is retried after that time; if the value is negative or not a number,
/// after `refused_cap`.
///
/// No wait is longer than a day.
///
/// ```
/// use std::time::Duration;
/// use tunnel_client::Backoff;
/// let backoff = Backoff::default()
///     .initial(Duration::from_millis(100))
///     .cap(Duration::from_secs(5));
/// # let _ = backoff;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a backoff does nothing unless it is given to a builder"]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    refused_cap: Duration,
    healthy_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            refused_cap: Duration::from_secs(120),
            healthy_after: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The first step: the longest wait after one failure. Default: 500 ms.
    pub fn initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// The largest step. Default: 30 s. If it is smaller than [`initial`](Self::initial), it limits
    /// that too.
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// The longest wait after a lasting refusal; the shortest is half of it. Default: 2 min.
    pub fn refused_cap(mut self, cap: Duration) -> Self {
        self.refused_cap = cap;
        self
    }

    /// How long a tunnel must have been open to reset the step. Default: 10 s.
    pub fn healthy_after(mut self, time: Duration) -> Self {
        self.healthy_after = time;
        self
    }

    /// Whether a tunnel that was open for this time resets the step.
    pub(crate) fn is_healthy(&self, open: Duration) -> bool {
        open >= self.healthy_after
    }

    /// The step after a number of failures: it doubles with each of them.
    fn step(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.initial
            .saturating_mul(factor)
            .min(self.cap)
            .min(LONGEST)
    }
}

/// The state of one link's backoff.
#[derive(Clone, Debug)]
pub struct Steps {
    backoff: Backoff,
    /// Failures since the last healthy tunnel.
    failures: u32,
}

impl Steps {
    /// Without failures.
    pub fn new(backoff: &Backoff) -> Self {
        Self {
            backoff: backoff.clone(),
            failures: 0,
        }
    }

    /// How long to wait after a failure, or after a tunnel that was not healthy.
    pub fn after_failure(&mut self, draw: Draw<'_>) -> Duration {
        let step = self.backoff.step(self.failures);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(draw())
    }

    /// How long to wait after a tunnel that its gateway drained: no time, unless the tunnels before
    /// it were not healthy either.
    pub fn after_drain(&mut self, healthy: bool, draw: Draw<'_>) -> Duration {
        if self.failures > 0 {
            return self.after_failure(draw);
        }
        self.failures = u32::from(!healthy);
        Duration::ZERO
    }

    /// The longest wait while calls wait for the tunnel.
    pub fn first(&self, draw: Draw<'_>) -> Duration {
        self.backoff.step(0).mul_f64(draw())
    }

    /// How long to wait after a lasting refusal.
    pub fn after_refusal(&self, draw: Draw<'_>) -> Duration {
        let longest = self.backoff.refused_cap.min(LONGEST);
        longest.mul_f64(0.5 + 0.5 * draw())
    }

    /// The shortest wait after a failure: that which the gateway asks for, if it does.
    pub fn least_after(&self, error: &DownReason, draw: Draw<'_>) -> Duration {
        match error.pushback() {
            None => Duration::ZERO,
            Some(Pushback::AtLeast(time)) => time.min(LONGEST),
            Some(Pushback::NotSoon) => self.after_refusal(draw),
        }
    }

    /// Notes that a tunnel was open for this time. Returns whether that resets the step.
    pub fn was_open(&mut self, time: Duration) -> bool {
        let healthy = self.backoff.is_healthy(time);
        if healthy {
            self.failures = 0;
        }
        healthy
    }
}

/// Randomness: a function that returns numbers from 0 to 1.
pub type Draw<'a> = &'a mut dyn FnMut() -> f64;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DRAWS: usize = 500;

    /// The shortest and the longest of many waits.
    fn spread(mut draw: impl FnMut() -> Duration) -> (Duration, Duration) {
        let draws: Vec<_> = (0..DRAWS).map(|_| draw()).collect();
        let shortest = draws.iter().min().expect("some");
        let longest = draws.iter().max().expect("some");
        (*shortest, *longest)
    }

    fn at_step(step: u32) -> Steps {
        let mut steps = Steps::new(&Backoff::default());
        steps.failures = step;
        steps
    }

    #[test]
    fn each_step_is_drawn_from_zero_to_twice_the_last_up_to_the_cap() {
        for (step, most) in [(0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0)] {
            let most = Duration::from_secs_f64(most);
            let (shortest, longest) = spread(|| at_step(step).after_failure(&mut fastrand::f64));
            assert!(longest <= most, "step {step}: {longest:?}");
            // By chance these assertions fail once in 10^21 and once in 10^14 runs.
            assert!(shortest < most / 10, "step {step}: {shortest:?}");
            assert!(longest > most * 15 / 16, "step {step}: {longest:?}");
        }
    }

    #[test]
    fn any_number_of_failures_has_a_wait_up_to_the_cap() {
        for step in [31, 32, 64, 1 << 20, u32::MAX - 1, u32::MAX] {
            let mut steps = at_step(step);
            for _ in 0..3 {
                assert!(steps.after_failure(&mut fastrand::f64) <= 30 * SECOND);
            }
            assert!(steps.failures >= step);
        }
    }

    #[test]
    fn failures_increase_the_step_and_a_healthy_tunnel_resets_it() {
        let mut steps = at_step(0);
        for failure in 1..=10 {
            steps.after_failure(&mut fastrand::f64);
            assert_eq!(steps.failures, failure);
        }
        assert!(!steps.was_open(9 * SECOND));
        assert_eq!(
            steps.failures, 10,
            "a tunnel that ends at once is no success"
        );
        assert!(steps.was_open(10 * SECOND));
        assert_eq!(steps.failures, 0);
        assert!(steps.after_failure(&mut fastrand::f64) <= Duration::from_millis(500));
    }

    #[test]
    fn a_refusal_waits_for_at_least_half_the_refused_cap_and_does_not_step() {
        let steps = at_step(3);
        let (shortest, longest) = spread(|| steps.after_refusal(&mut fastrand::f64));
        assert!(shortest >= 60 * SECOND, "{shortest:?}");
        assert!(shortest < 70 * SECOND, "{shortest:?}");
        assert!(
            longest <= 120 * SECOND && longest > 110 * SECOND,
            "{longest:?}"
        );
        assert_eq!(steps.failures, 3);
    }

    #[test]
    fn contradictory_and_overflowing_settings_are_adjusted() {
        for (initial, cap) in [
            (Duration::MAX, Duration::MAX),
            (Duration::MAX, SECOND),
            (SECOND, Duration::ZERO),
            (Duration::ZERO, Duration::ZERO),
        ] {
            let backoff = Backoff::default()
                .initial(initial)
                .cap(cap)
                .refused_cap(cap);
            let mut steps = Steps::new(&backoff);
            for _ in 0..40 {
                assert!(steps.after_failure(&mut fastrand::f64) <= cap.min(LONGEST));
                assert!(steps.after_refusal(&mut fastrand::f64) <= cap.min(LONGEST));
            }
        }
    }
}
