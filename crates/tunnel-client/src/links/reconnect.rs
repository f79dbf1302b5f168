//! When a link opens its next tunnel: the backoff, and what to do meanwhile. Decisions only; the link
//! does the waiting.

use std::time::Duration;

use tunnel_core::EndReason;

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
/// After a drain by the gateway the first attempt is made at once, unless the drained tunnel and
/// the one before it were both younger than `healthy_after`. While calls wait for a forward tunnel,
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
#[derive(Debug)]
pub(crate) struct Steps {
    backoff: Backoff,
    /// Failures since the last healthy tunnel.
    failures: u32,
}

impl Steps {
    pub(crate) fn new(backoff: &Backoff) -> Self {
        Self {
            backoff: backoff.clone(),
            failures: 0,
        }
    }

    /// How long to wait after a failure, or after a tunnel that was not healthy.
    pub(crate) fn after_failure(&mut self) -> Duration {
        let step = self.backoff.step(self.failures);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(fastrand::f64())
    }

    /// How long to wait after a tunnel that its gateway drained: no time, unless the tunnels before
    /// it were not healthy either.
    pub(crate) fn after_drain(&mut self, healthy: bool) -> Duration {
        if self.failures > 0 {
            return self.after_failure();
        }
        self.failures = u32::from(!healthy);
        Duration::ZERO
    }

    /// The longest wait while calls wait for the tunnel.
    pub(crate) fn first(&self) -> Duration {
        self.backoff.step(0).mul_f64(fastrand::f64())
    }

    /// A wait that the gateway has asked for, limited to a day.
    pub(crate) fn bounded(&self, time: Duration) -> Duration {
        time.min(LONGEST)
    }

    /// How long to wait after a lasting refusal.
    pub(crate) fn after_refusal(&self) -> Duration {
        let longest = self.backoff.refused_cap.min(LONGEST);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Notes that a tunnel was open for this time. Returns whether that resets the step.
    pub(crate) fn was_open(&mut self, time: Duration) -> bool {
        let healthy = self.backoff.is_healthy(time);
        if healthy {
            self.failures = 0;
        }
        healthy
    }
}

/// The plan for a link's next tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How long to wait before the next attempt.
    pub(crate) wait: Duration,
    /// The shortest wait, also while calls wait for the tunnel.
    pub(crate) least: Duration,
    /// Whether the wait follows a lasting refusal.
    pub(crate) refused: bool,
    /// Whether to open a fallback tunnel to another gateway meanwhile.
    pub(crate) fallback: bool,
    /// Whether the last tunnel is draining and about to be replaced.
    pub(crate) draining: bool,
}

impl Plan {
    /// The plan after a failure.
    pub(crate) fn after_failure(error: &DownReason, steps: &mut Steps) -> Self {
        let refused = error.is_refusal();
        let wait = match refused {
            true => steps.after_refusal(),
            false => steps.after_failure(),
        };
        let least = match error.pushback() {
            None => Duration::ZERO,
            Some(Pushback::AtLeast(time)) => steps.bounded(time),
            Some(Pushback::NotSoon) => steps.after_refusal(),
        };
        Self {
            wait: wait.max(least),
            least,
            refused,
            ..Self::default()
        }
    }

    /// The plan after a tunnel that was open for some time. Without a reason it has not ended, but its
    /// gateway drains it. `others` says whether there are other gateways.
    pub(crate) fn after_tunnel(
        reason: Option<&EndReason>,
        open: Duration,
        others: bool,
        steps: &mut Steps,
    ) -> Self {
        let healthy = steps.was_open(open);
        match reason {
            // A gateway also just closes the tunnel if it drains one without calls, or does not know
            // drain notices.
            None | Some(EndReason::PeerDrained | EndReason::PeerClosed) => Self {
                // The address of the only gateway may lead to another instance, which is not draining.
                wait: match others {
                    true => steps.after_failure(),
                    false => steps.after_drain(healthy),
                },
                fallback: others,
                draining: reason.is_none(),
                ..Self::default()
            },
            Some(reason) => Self::after_failure(&DownReason::Ended(reason.clone()), steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;
    use tunnel_core::ConnectionError;
    use tunnel_tonic::TunnelError;

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
            let (shortest, longest) = spread(|| at_step(step).after_failure());
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
                assert!(steps.after_failure() <= 30 * SECOND);
            }
            assert!(steps.failures >= step);
        }
    }

    #[test]
    fn failures_increase_the_step_and_a_healthy_tunnel_resets_it() {
        let mut steps = at_step(0);
        for failure in 1..=10 {
            steps.after_failure();
            assert_eq!(steps.failures, failure);
        }
        assert!(!steps.was_open(9 * SECOND));
        assert_eq!(
            steps.failures, 10,
            "a tunnel that ends at once is no success"
        );
        assert!(steps.was_open(10 * SECOND));
        assert_eq!(steps.failures, 0);
        assert!(steps.after_failure() <= Duration::from_millis(500));
    }

    #[test]
    fn a_refusal_waits_for_at_least_half_the_refused_cap_and_does_not_step() {
        let steps = at_step(3);
        let (shortest, longest) = spread(|| steps.after_refusal());
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
                assert!(steps.after_failure() <= cap.min(LONGEST));
                assert!(steps.after_refusal() <= cap.min(LONGEST));
            }
        }
    }

    const HEALTHY: Duration = Duration::from_secs(3600);
    const INITIAL: Duration = Duration::from_millis(500);

    fn steps() -> Steps {
        Steps::new(&Backoff::default())
    }

    fn after(reason: Option<&EndReason>, open: Duration, others: bool) -> Plan {
        Plan::after_tunnel(reason, open, others, &mut steps())
    }

    #[test]
    fn the_only_gateway_is_dialled_again_at_once_when_it_drains() {
        for reason in [
            None,
            Some(&EndReason::PeerDrained),
            Some(&EndReason::PeerClosed),
        ] {
            let plan = after(reason, HEALTHY, false);
            assert_eq!(plan.wait, Duration::ZERO);
            assert!(!plan.fallback && !plan.refused);
            assert_eq!(plan.draining, reason.is_none());
        }
    }

    #[test]
    fn one_of_several_gateways_gets_a_fallback_and_a_wait_of_at_most_the_first_step() {
        for reason in [
            None,
            Some(&EndReason::PeerDrained),
            Some(&EndReason::PeerClosed),
        ] {
            let plan = after(reason, HEALTHY, true);
            assert!(plan.wait <= INITIAL);
            assert!(plan.fallback);
        }
    }

    #[test]
    fn a_gateway_that_drains_one_young_tunnel_is_dialled_at_once_and_later_with_backoff() {
        let mut steps = steps();
        let plans = (0..200).map(|_| Plan::after_tunnel(None, Duration::ZERO, false, &mut steps));
        let waits: Vec<_> = plans.map(|plan| plan.wait).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1..].iter().max() > Some(&INITIAL));
    }

    fn pushed_back(value: &'static str) -> Plan {
        let mut refusal = Status::unavailable("later");
        let value = value.parse().expect("legal");
        refusal
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", value);
        let error = DownReason::NotOpened(TunnelError::Refused(refusal));
        Plan::after_failure(&error, &mut steps())
    }

    #[test]
    fn a_refusal_that_names_a_time_is_not_retried_before() {
        let plan = pushed_back("7000");
        assert_eq!(plan.wait, Duration::from_secs(7));
        assert_eq!(plan.least, plan.wait);
        assert!(pushed_back("0").wait <= INITIAL);
        for never in ["-1", "soon", "1e3"] {
            let plan = pushed_back(never);
            assert!(plan.wait >= Duration::from_secs(59), "{never}: {plan:?}");
            assert!(!plan.refused, "it is no lasting refusal");
        }
        assert!(pushed_back("99999999999999").wait <= Duration::from_secs(24 * 3600));
    }

    #[test]
    fn a_broken_tunnel_is_replaced_after_the_first_step_without_a_fallback() {
        let lost = EndReason::Error(ConnectionError::TransportLost(
            tunnel_core::TransportCause::Other.into(),
        ));
        let plan = after(Some(&lost), HEALTHY, true);
        assert!(plan.wait <= INITIAL);
        assert_eq!(
            (plan.fallback, plan.refused, plan.draining),
            (false, false, false)
        );
    }

    #[test]
    fn lasting_refusals_wait_for_the_refused_cap_and_are_marked() {
        let kick = tunnel_core::Status::new(tunnel_core::Code::PermissionDenied, "no");
        let kick = EndReason::Error(ConnectionError::EndedByPeer(kick));
        let kicked = after(Some(&kick), HEALTHY, false);
        let refused = TunnelError::Refused(Status::unauthenticated("who?"));
        let refused = Plan::after_failure(&DownReason::NotOpened(refused), &mut steps());
        for plan in [kicked, refused] {
            assert!(plan.refused);
            assert!(plan.wait > Duration::from_secs(59));
        }
        let busy = TunnelError::Refused(Status::unavailable("later"));
        let busy = Plan::after_failure(&DownReason::NotOpened(busy), &mut steps());
        assert!(!busy.refused && busy.wait <= INITIAL);
    }
}
