//! One link: the loop that keeps one tunnel up.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};
use tunnel_core::EndReason;
use tunnel_tonic::TunnelError;

use super::credentials::Attempt;
use super::place::Standing;
use super::plan::Plan;
use super::shared::{Live, Shared, deadline};
use super::status::{LinkError, LinkState, LinkStatus, StandIn, StopReason};
use crate::backoff::Steps;

/// Keeps one tunnel to one gateway up.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    /// Its number among all links of the server.
    number: usize,
    /// The gateway it belongs to.
    home: usize,
    /// Its number among the links of that gateway.
    index: usize,
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>, number: usize, home: usize, index: usize) -> Self {
        Self {
            shared,
            number,
            home,
            index,
        }
    }

    /// How it stands at first.
    pub(crate) fn status(&self) -> LinkStatus {
        LinkStatus::new(self.shared.places[self.home].name.clone(), self.index)
    }

    /// Keeps the tunnel up until the server stops, and then waits for what is left of it.
    pub(crate) async fn run(self) {
        let registry = &self.shared.registry;
        let reason = tokio::select! {
            biased;
            reason = registry.stopped() => reason,
            never = self.keep_up() => match never {},
        };
        if reason == StopReason::Drained && registry.has_any_of(self.number) {
            self.set_state(LinkState::Draining);
        }
        registry.none_of(self.number).await;
        self.set_state(LinkState::Stopped(reason));
    }

    async fn keep_up(&self) -> Infallible {
        let mut steps = Steps::new(&self.shared.settings.backoff);
        let mut plan = Plan::default();
        loop {
            let tunnel = self.come_home(plan, &mut steps).await;
            plan = self.stay(&tunnel, &mut steps).await;
        }
    }

    /// Comes to a tunnel to the own gateway, by way of another one if that is the plan.
    async fn come_home(&self, plan: Plan, steps: &mut Steps) -> Live {
        if !plan.stand_in {
            return self.reach_home(plan, steps).await;
        }
        tokio::select! {
            biased;
            home = self.reach_home(plan, steps) => home,
            never = self.keep_stand_in() => match never {},
        }
    }

    /// Dials the own gateway until it accepts.
    async fn reach_home(&self, mut plan: Plan, steps: &mut Steps) -> Live {
        loop {
            // While a tunnel drains that was not replaced yet, that is what is to be seen.
            if plan.draining {
                self.set_state(LinkState::Draining);
                sleep(plan.wait).await;
            } else {
                self.back_off(plan).await;
                self.set_state(LinkState::Connecting);
            }
            match self.attempt(self.home).await {
                Ok(live) => {
                    self.set_state(LinkState::Connected(live.tunnel.info().clone()));
                    return live;
                }
                Err(error) => {
                    let error = LinkError::Open(error);
                    plan = Plan::after_attempt(&error, steps);
                    self.report(&error, plan);
                }
            }
        }
    }

    async fn back_off(&self, plan: Plan) {
        if plan.wait.is_zero() {
            return;
        }
        let until = Instant::now() + plan.wait;
        self.set_state(LinkState::BackingOff {
            until: until.into_std(),
            refused: plan.refused,
        });
        sleep_until(until).await;
    }

    /// Stays until the tunnel takes no more calls. Says how to go on.
    async fn stay(&self, live: &Live, steps: &mut Steps) -> Plan {
        let reason = self.over(live).await;
        let others = self.shared.places.len() > 1;
        let plan = Plan::after_tunnel(reason.as_ref(), live.open_for(), others, steps);
        match &reason {
            Some(reason) => self.report(&LinkError::Ended(reason.clone()), plan),
            None => self.note(LinkError::Ended(EndReason::PeerDrained)),
        }
        plan
    }

    /// Waits until a tunnel takes no more calls, and learns from it.
    async fn over(&self, live: &Live) -> Option<EndReason> {
        let reason = live.over().await;
        self.shared.learn(live, reason.as_ref());
        if reason.is_none() {
            let tunnel = live.tunnel.info().id();
            let gateway = &self.shared.places[live.place].name;
            tracing::info!(%tunnel, %gateway, "the gateway drains the reverse tunnel");
        }
        reason
    }

    /// Keeps a tunnel to another gateway, as far as one accepts it.
    async fn keep_stand_in(&self) -> Infallible {
        let mut steps = Steps::new(&self.shared.settings.backoff);
        loop {
            if let Some(guest) = self.find_guest().await {
                self.over(&guest.live).await;
                steps.was_open(guest.live.open_for());
            }
            sleep(steps.after_failure()).await;
        }
    }

    /// Opens a tunnel to the first other gateway that accepts one, of those that are not known
    /// to be away.
    async fn find_guest(&self) -> Option<Guest<'_>> {
        let count = self.shared.places.len();
        for place in (1..count).map(|step| (self.home + step) % count) {
            if self.shared.places[place].standing() == Standing::Away {
                continue;
            }
            match self.attempt(place).await {
                Ok(live) => return Some(Guest::new(self, live)),
                Err(error) => self.note(LinkError::Open(error)),
            }
        }
        None
    }

    async fn attempt(&self, place: usize) -> Result<Live, TunnelError> {
        let mut attempt = None;
        self.update(|status| {
            status.attempts += 1;
            attempt = Some((status.attempts, status.last_error.clone()));
        });
        let (number, last_error) = attempt.unwrap_or_default();
        let attempt = Attempt {
            gateway: self.shared.places[place].name.clone(),
            number,
            last_error,
        };
        self.shared.open(place, Some(self.number), attempt).await
    }

    /// Says what went wrong, and what follows.
    fn report(&self, error: &LinkError, plan: Plan) {
        let gateway = &self.shared.places[self.home].name;
        let wait = plan.wait;
        if plan.refused {
            tracing::warn!(
                %gateway, %error, ?wait,
                "the gateway refuses the reverse tunnel, which will not change by itself"
            );
        } else {
            tracing::info!(%gateway, %error, ?wait, "no reverse tunnel");
        }
        self.note(error.clone());
    }

    fn note(&self, error: LinkError) {
        self.update(|status| status.last_error = Some(error));
    }

    fn set_state(&self, state: LinkState) {
        self.update(|status| status.state = state);
    }

    fn update(&self, change: impl FnOnce(&mut LinkStatus)) {
        self.shared.board.send_modify(|links| {
            if let Some(status) = links.get_mut(self.number) {
                change(status);
            }
        });
    }
}

/// A tunnel to another gateway that stands in, and is drained when it is not needed any more.
struct Guest<'a> {
    link: &'a Link,
    live: Live,
}

impl<'a> Guest<'a> {
    fn new(link: &'a Link, live: Live) -> Self {
        link.update(|status| {
            status.stand_in = Some(StandIn {
                gateway: link.shared.places[live.place].name.clone(),
                tunnel: live.tunnel.info().clone(),
            });
        });
        Self { link, live }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.link.update(|status| status.stand_in = None);
        let within = self.link.shared.settings.stand_in_deadline;
        self.live.tunnel.drain(deadline(within));
    }
}
