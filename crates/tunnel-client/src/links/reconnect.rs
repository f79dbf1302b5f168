//! What a link does when it has lost its tunnel: decisions, without waiting.

use std::time::Duration;

use tunnel_core::EndReason;

use super::status::{LinkError, Pushback};
use crate::backoff::Steps;

/// The plan for a link's next tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How long to wait before the next attempt.
    pub(crate) wait: Duration,
    /// How much of the wait no call that waits can shorten.
    pub(crate) least: Duration,
    /// Whether the wait follows a lasting refusal.
    pub(crate) refused: bool,
    /// Whether to open a fallback tunnel to another gateway meanwhile.
    pub(crate) fallback: bool,
    /// Whether the last tunnel drains, and is about to be replaced.
    pub(crate) draining: bool,
}

impl Plan {
    /// After an attempt that failed.
    pub(crate) fn after_attempt(error: &LinkError, steps: &mut Steps) -> Self {
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

    /// After a tunnel that was open for some time and has ended; without a reason, it was told
    /// to drain and has not ended yet. `others` says whether there are other gateways.
    pub(crate) fn after_tunnel(
        reason: Option<&EndReason>,
        open: Duration,
        others: bool,
        steps: &mut Steps,
    ) -> Self {
        let healthy = steps.was_open(open);
        match reason {
            // Also a gateway that drains a tunnel without calls, or does not speak drain, only
            // closes it.
            None | Some(EndReason::PeerDrained | EndReason::PeerClosed) => Self {
                // The only gateway's address may lead to another instance, which does not drain.
                wait: match others {
                    true => steps.after_failure(),
                    false => steps.after_drain(healthy),
                },
                fallback: others,
                draining: reason.is_none(),
                ..Self::default()
            },
            Some(reason) => Self::after_attempt(&LinkError::Ended(reason.clone()), steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backoff;
    use tonic::Status;
    use tunnel_core::ConnectionError;
    use tunnel_tonic::TunnelError;

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
    fn one_of_several_is_given_a_fallback_and_dialled_with_the_first_step_at_most() {
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
    fn a_gateway_that_drains_a_young_tunnel_is_left_at_once_and_one_that_drains_them_all_is_not() {
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
        let error = LinkError::Open(TunnelError::Refused(refusal));
        Plan::after_attempt(&error, &mut steps())
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
    fn a_tunnel_that_broke_is_replaced_with_the_first_step_and_nobody_stands_in() {
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
    fn refusals_wait_for_the_slow_cap_and_are_called_so() {
        let kick = tunnel_core::Status::new(tunnel_core::Code::PermissionDenied, "no");
        let kick = EndReason::Error(ConnectionError::EndedByPeer(kick));
        let kicked = after(Some(&kick), HEALTHY, false);
        let refused = TunnelError::Refused(Status::unauthenticated("who?"));
        let refused = Plan::after_attempt(&LinkError::Open(refused), &mut steps());
        for plan in [kicked, refused] {
            assert!(plan.refused);
            assert!(plan.wait > Duration::from_secs(59));
        }
        let busy = TunnelError::Refused(Status::unavailable("later"));
        let busy = Plan::after_attempt(&LinkError::Open(busy), &mut steps());
        assert!(!busy.refused && busy.wait <= INITIAL);
    }
}
