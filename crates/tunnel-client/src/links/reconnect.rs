//! When a link opens its next tunnel, and what to do meanwhile: by the backoff, and by what the gateway has told.
//!
//! Decisions only, so that a simulation can run them. The link does the waiting.

use std::time::Duration;

use tunnel_core::EndReason;

use super::backoff::{Draw, Steps};
use super::status::DownReason;

/// The longest return that a gateway is believed. Nobody can tell a device without a tunnel that it may come
/// earlier, so a wrong value must not keep it away for long.
const LONGEST_RETURN: Duration = Duration::from_secs(10 * 60);

/// How much longer a device takes to return if it has another tunnel.
const WITH_ANOTHER: u32 = 10;

/// The longest return that a gateway is believed if the device has another tunnel. It can be called meanwhile, but
/// the loss of that tunnel too would cut it off.
const LONGEST_RETURN_WITH_ANOTHER: Duration = Duration::from_secs(60 * 60);

/// How long a sibling has to take the tunnel, before the primary gateway is dialled.
const SIBLING_FIRST: Duration = Duration::from_secs(5);

/// What a gateway has told about the next tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Over how long to spread the return after a loss.
    pub return_spread: Option<Duration>,
    /// With a drain: the time within which to open the next tunnel.
    pub grace: Option<Duration>,
}

/// What a link has beside the tunnel that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Other gateways that are configured.
    pub gateways: bool,
    /// Siblings, which the gateway has told with its drain.
    pub siblings: bool,
    /// A tunnel of another link that takes calls.
    pub tunnel: bool,
}

impl Told {
    /// How long to wait before the return after a loss.
    fn return_after(self, another_tunnel: bool, draw: Draw<'_>) -> Duration {
        let spread = self.return_spread.unwrap_or_default();
        let spread = match another_tunnel {
            false => spread.min(LONGEST_RETURN),
            true => spread
                .saturating_mul(WITH_ANOTHER)
                .min(LONGEST_RETURN_WITH_ANOTHER),
        };
        spread.mul_f64(draw())
    }

    /// How long to wait before the next tunnel after a drain.
    fn move_after(self, draw: Draw<'_>) -> Duration {
        let grace = self.grace.unwrap_or_default().min(LONGEST_RETURN);
        grace.mul_f64(draw())
    }
}

/// The plan for a link's next tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How long to wait before the next attempt.
    pub wait: Duration,
    /// The shortest wait, also while calls wait for the tunnel.
    pub least: Duration,
    /// Whether the wait follows a lasting refusal.
    pub refused: bool,
    /// Whether to open a fallback tunnel to a sibling or another gateway meanwhile.
    pub fallback: bool,
    /// Whether that is expected at a sibling. Calls that wait do not shorten the wait then.
    pub siblings: bool,
    /// How long to wait before the fallback tunnel.
    pub fallback_wait: Duration,
    /// Whether the last tunnel is draining and about to be replaced.
    pub draining: bool,
}

impl Plan {
    /// The plan after a failure.
    pub fn after_failure(error: &DownReason, steps: &mut Steps, draw: Draw<'_>) -> Self {
        let refused = error.is_refusal();
        let wait = match refused {
            true => steps.after_refusal(draw),
            false => steps.after_failure(draw),
        };
        let least = steps.least_after(error, draw);
        Self {
            wait: wait.max(least),
            least,
            refused,
            ..Self::default()
        }
    }

    /// The plan after a tunnel that was open for some time. Without a reason it has not ended, but its
    /// gateway drains it.
    pub fn after_tunnel(
        reason: Option<&EndReason>,
        open: Duration,
        beside: Beside,
        told: Told,
        steps: &mut Steps,
        draw: Draw<'_>,
    ) -> Self {
        let healthy = steps.was_open(open);
        match reason {
            // A gateway also just closes the tunnel if it drains one without calls, or does not know
            // drain notices.
            None | Some(EndReason::PeerDrained | EndReason::PeerClosed) => {
                let fallback = beside.gateways || beside.siblings;
                let fallback_wait = told.move_after(draw);
                // The address of the only gateway may lead to another instance, which is not draining.
                let mut wait = fallback_wait
                    + match fallback {
                        true => steps.after_failure(draw),
                        false => steps.after_drain(healthy, draw),
                    };
                if beside.siblings {
                    // The tunnel to the sibling is another tunnel.
                    wait = (wait + SIBLING_FIRST).max(told.return_after(true, draw));
                }
                Self {
                    wait,
                    fallback,
                    siblings: beside.siblings,
                    fallback_wait,
                    draining: reason.is_none(),
                    ..Self::default()
                }
            }
            Some(reason) => {
                let reason = DownReason::Ended(reason.clone());
                let mut plan = Self::after_failure(&reason, steps, draw);
                if !plan.refused {
                    plan.wait = plan.wait.max(told.return_after(beside.tunnel, draw));
                }
                plan
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::backoff::Backoff;
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

    const HEALTHY: Duration = Duration::from_secs(3600);
    const INITIAL: Duration = Duration::from_millis(500);

    fn steps() -> Steps {
        Steps::new(&Backoff::default())
    }

    fn after(reason: Option<&EndReason>, open: Duration, gateways: bool) -> Plan {
        let beside = Beside {
            gateways,
            ..Beside::default()
        };
        plan_after(reason, open, beside, Told::default(), &mut steps())
    }

    fn plan_after(
        reason: Option<&EndReason>,
        open: Duration,
        beside: Beside,
        told: Told,
        steps: &mut Steps,
    ) -> Plan {
        Plan::after_tunnel(reason, open, beside, told, steps, &mut fastrand::f64)
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
        let plans = (0..200).map(|_| {
            let (beside, told) = (Beside::default(), Told::default());
            plan_after(None, Duration::ZERO, beside, told, &mut steps)
        });
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
        Plan::after_failure(&error, &mut steps(), &mut fastrand::f64)
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
        let refused = Plan::after_failure(
            &DownReason::NotOpened(refused),
            &mut steps(),
            &mut fastrand::f64,
        );
        for plan in [kicked, refused] {
            assert!(plan.refused);
            assert!(plan.wait > Duration::from_secs(59));
        }
        let busy = TunnelError::Refused(Status::unavailable("later"));
        let busy = Plan::after_failure(
            &DownReason::NotOpened(busy),
            &mut steps(),
            &mut fastrand::f64,
        );
        assert!(!busy.refused && busy.wait <= INITIAL);
    }

    fn lost() -> EndReason {
        EndReason::Error(ConnectionError::TransportLost(
            tunnel_core::TransportCause::Other.into(),
        ))
    }

    /// The shortest and the longest wait after a loss, with a spread that the gateway has told.
    fn return_within(spread: Duration, tunnel: bool) -> (Duration, Duration) {
        let beside = Beside {
            tunnel,
            ..Beside::default()
        };
        let told = Told {
            return_spread: Some(spread),
            grace: None,
        };
        let plan = || plan_after(Some(&lost()), HEALTHY, beside, told, &mut steps());
        self::spread(|| plan().wait)
    }

    #[test]
    fn a_lost_device_returns_within_the_told_spread_or_ten_times_of_it_with_another_tunnel() {
        for (told, tunnel, most) in [
            (20, false, 20),
            (20, true, 200),
            // Not everything is believed.
            (3600, false, 600),
            (3600, true, 3600),
            (u64::MAX, false, 600),
            (u64::MAX, true, 3600),
        ] {
            let most = most * SECOND;
            let (shortest, longest) = return_within(Duration::from_secs(told), tunnel);
            assert!(longest <= most && longest > most * 15 / 16, "{longest:?}");
            assert!(shortest < most / 10, "{shortest:?}");
        }
        // The backoff holds too.
        let (_, longest) = return_within(Duration::ZERO, false);
        assert!(longest <= INITIAL && longest > INITIAL / 2);
    }

    #[test]
    fn the_told_spread_counts_once_and_never_after_a_refusal() {
        let told = Told {
            return_spread: Some(600 * SECOND),
            grace: None,
        };
        let mut steps = steps();
        plan_after(Some(&lost()), HEALTHY, Beside::default(), told, &mut steps);
        let busy = DownReason::NotOpened(TunnelError::Refused(Status::unavailable("later")));
        let plan = Plan::after_failure(&busy, &mut steps, &mut fastrand::f64);
        assert!(plan.wait <= SECOND, "{plan:?}");
        let kick = tunnel_core::Status::new(tunnel_core::Code::PermissionDenied, "no");
        let kick = EndReason::Error(ConnectionError::EndedByPeer(kick));
        let kicked = || {
            plan_after(
                Some(&kick),
                HEALTHY,
                Beside::default(),
                told,
                &mut self::steps(),
            )
        };
        assert!(spread(|| kicked().wait).1 <= 120 * SECOND);
    }

    #[test]
    fn a_device_that_is_told_of_siblings_moves_within_the_grace_and_returns_later() {
        let beside = Beside {
            siblings: true,
            ..Beside::default()
        };
        let told = Told {
            return_spread: Some(20 * SECOND),
            grace: Some(4 * SECOND),
        };
        let plan = || plan_after(None, HEALTHY, beside, told, &mut steps());
        for _ in 0..DRAWS {
            let plan = plan();
            assert!(plan.fallback && plan.draining);
            assert!(plan.wait >= plan.fallback_wait + 5 * SECOND, "{plan:?}");
        }
        let (_, longest) = spread(|| plan().fallback_wait);
        assert!(longest <= 4 * SECOND && longest > 3 * SECOND, "{longest:?}");
        let (_, longest) = spread(|| plan().wait);
        assert!(longest <= 200 * SECOND && longest > 150 * SECOND);
    }

    #[test]
    fn a_drain_without_siblings_follows_its_grace_alone() {
        let told = |grace| Told {
            return_spread: Some(600 * SECOND),
            grace,
        };
        let plan = |told| plan_after(None, HEALTHY, Beside::default(), told, &mut steps());
        assert_eq!(plan(told(None)).wait, Duration::ZERO);
        let (_, longest) = spread(|| plan(told(Some(8 * SECOND))).wait);
        assert!(longest <= 8 * SECOND && longest > 7 * SECOND, "{longest:?}");
        let (_, longest) = spread(|| plan(told(Some(Duration::MAX))).wait);
        assert!(longest <= LONGEST_RETURN, "{longest:?}");
    }
}
