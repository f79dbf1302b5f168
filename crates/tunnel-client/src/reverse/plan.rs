//! What a link does when it has no tunnel any more: decisions, without anything that waits.

use std::time::Duration;

use tunnel_core::EndReason;

use super::status::LinkError;
use crate::backoff::Steps;

/// How a link goes about its next tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How long to wait before the next attempt.
    pub(crate) wait: Duration,
    /// Whether the wait is for a refusal that will not change by itself.
    pub(crate) refused: bool,
    /// Whether another gateway is to stand in meanwhile.
    pub(crate) stand_in: bool,
    /// Whether the last tunnel drains, and is about to be replaced.
    pub(crate) draining: bool,
}

impl Plan {
    /// After an attempt that failed.
    pub(crate) fn after_attempt(error: &LinkError, steps: &mut Steps) -> Self {
        let refused = error.is_refusal();
        Self {
            wait: if refused {
                steps.after_refusal()
            } else {
                steps.after_failure()
            },
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
            // An end in order: a gateway that drains a tunnel without calls, or speaks for one that
            // knows no drain, has nothing else to say.
            None | Some(EndReason::PeerDrained | EndReason::PeerClosed) => Self {
                // Alone, the gateway's address may lead to a sibling that is not draining: worth
                // a look at once, but not one after the other.
                wait: if healthy && !others {
                    Duration::ZERO
                } else {
                    steps.after_failure()
                },
                stand_in: others,
                draining: reason.is_none() && healthy,
                refused: false,
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
            assert!(!plan.stand_in && !plan.refused);
            assert_eq!(plan.draining, reason.is_none());
        }
    }

    #[test]
    fn one_of_several_is_given_a_stand_in_and_dialled_with_the_first_step_at_most() {
        for reason in [
            None,
            Some(&EndReason::PeerDrained),
            Some(&EndReason::PeerClosed),
        ] {
            let plan = after(reason, HEALTHY, true);
            assert!(plan.wait <= INITIAL);
            assert!(plan.stand_in);
        }
    }

    #[test]
    fn a_gateway_that_drains_every_tunnel_at_once_is_stepped_back_from() {
        let mut steps = steps();
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let plan = Plan::after_tunnel(None, Duration::ZERO, false, &mut steps);
            longest = longest.max(plan.wait);
        }
        assert!(longest > INITIAL);
    }

    #[test]
    fn a_tunnel_that_broke_is_replaced_with_the_first_step_and_nobody_stands_in() {
        let lost = EndReason::Error(ConnectionError::TransportLost(String::new()));
        let plan = after(Some(&lost), HEALTHY, true);
        assert!(plan.wait <= INITIAL);
        assert_eq!(
            (plan.stand_in, plan.refused, plan.draining),
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
