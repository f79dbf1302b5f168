//! One link: the loop that keeps one tunnel up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tunnel_core::EndReason;
use tunnel_tonic::{TunnelError, telemetry};

use super::backoff::Steps;
use super::gateway_state::{GatewayState, Standing};
use super::reconnect::{Beside, Plan};
use super::settings::Attempt;
use super::shared::{Live, Shared};
use super::status::{DownReason, FallbackTunnel, LinkState, LinkStatus, StopReason};

/// The smallest part of the maximum age after which a tunnel is replaced.
const LEAST_AGE: f64 = 0.8;

/// The longest age, which timers can still express.
const OLDEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Keeps one tunnel to one gateway up.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) shared: Arc<Shared>,
    /// Its number among all links of the server or channel.
    number: usize,
    /// Its primary gateway.
    pub(super) primary: Arc<GatewayState>,
    /// Its number among the links of that gateway.
    pub(super) index: usize,
    /// Notified when a sibling does not accept the fallback tunnel.
    no_sibling: Notify,
}

impl Shared {
    /// Shows the links of all gateways, before they run.
    pub(crate) fn show_links(&self) {
        self.gateways.start(|gateway| self.show(gateway));
    }

    /// Runs the links of all gateways, also of those that are added meanwhile, until they are stopped and their
    /// tunnels are closed.
    pub(crate) async fn run(self: &Arc<Self>) -> StopReason {
        self.show_links();
        let mut added = self.gateways.subscribe();
        let mut running = FuturesUnordered::new();
        let reason = loop {
            for gateway in self.gateways.take_queue() {
                let links = gateway.links().enumerate();
                running.extend(links.map(|(index, number)| {
                    let (shared, primary) = (self.clone(), gateway.clone());
                    Link::new(shared, number, primary, index).run()
                }));
            }
            tokio::select! {
                biased;
                reason = self.registry.stopped() => break reason,
                _ = added.changed() => {}
                Some(()) = running.next() => {}
            }
        };
        while running.next().await.is_some() {}
        // Gateways that were added as the links were stopped have none that run.
        self.gateways.take_queue();
        self.all_stopped();
        reason
    }
}

/// Why a link ends.
enum Ending {
    Stopped(StopReason),
    /// Its gateway was removed. Whether another gateway has replaced its tunnel.
    Removed {
        replaced: bool,
    },
}

impl Link {
    fn new(shared: Arc<Shared>, number: usize, primary: Arc<GatewayState>, index: usize) -> Self {
        Self {
            shared,
            number,
            primary,
            index,
            no_sibling: Notify::new(),
        }
    }

    /// Keeps the tunnel up until the links are stopped or the gateway is removed, then waits until the tunnel is
    /// closed.
    async fn run(self) {
        let registry = &self.shared.registry;
        let ending = tokio::select! {
            biased;
            reason = registry.stopped() => Ending::Stopped(reason),
            replaced = self.dispensable() => Ending::Removed { replaced },
            never = self.keep_up() => match never {},
        };
        if !matches!(ending, Ending::Stopped(reason) if reason != StopReason::Drained)
            && registry.has_any_of(self.number)
        {
            self.set_state(LinkState::Draining);
        }
        match ending {
            Ending::Stopped(reason) => {
                registry.none_of(self.number).await;
                self.set_state(LinkState::Stopped(reason));
            }
            Ending::Removed { replaced } => {
                let shared = &self.shared;
                shared
                    .retire_link(&self.primary, self.number, replaced)
                    .await;
                registry.none_of(self.number).await;
                self.hide();
            }
        }
    }

    /// Waits until the gateway is removed and the link is not needed: the link of the same index to another gateway
    /// is connected, there is no other gateway, or this link has no tunnel, not even to a sibling. This takes no longer
    /// than an attempt. Returns whether it has been replaced.
    async fn dispensable(&self) -> bool {
        self.primary.removed().await;
        let mut links = self.shared.status_tx.subscribe();
        let mut replaced = false;
        let dispensable = links.wait_for(|links| {
            let has_tunnel = |link: &LinkStatus| matches!(link.state, LinkState::Connected(_));
            let own = links.iter().find(|link| link.number == self.number);
            let mut others = links.iter().filter(|link| !link.removed).peekable();
            let alone = others.peek().is_none();
            replaced = others.any(|link| link.index == self.index && has_tunnel(link));
            replaced || alone || !own.is_some_and(LinkStatus::is_connected)
        });
        // An error is impossible: the sender is borrowed here.
        let _ = timeout(self.shared.settings.open_timeout, dispensable).await;
        replaced
    }

    async fn keep_up(&self) -> Infallible {
        if let Some(lookup) = self.primary.gateway.lookup() {
            return self.keep_looked_up(lookup).await;
        }
        let mut steps = Steps::new(&self.shared.settings.backoff);
        let mut plan = Plan::default();
        let mut siblings = Vec::new();
        let mut reconnecting = false;
        loop {
            let siblings_told = std::mem::take(&mut siblings);
            let mut live = self.connect(plan, siblings_told, &mut steps).await;
            if std::mem::replace(&mut reconnecting, true) {
                telemetry::reconnecting(self.shared.direction());
            }
            plan = loop {
                tokio::select! {
                    biased;
                    reason = self.over(&live) => {
                        self.primary.seats.send_modify(|seats| seats.leave(self.index));
                        siblings = self.siblings(&live);
                        break self.after(&live, reason, !siblings.is_empty(), &mut steps);
                    }
                    younger = self.replacement() => {
                        let old = std::mem::replace(&mut live, younger);
                        tracing::info!(
                            parent: old.tunnel.span(),
                            "tunnel reached its maximum age, replaced"
                        );
                        self.shared.retire(&old, &self.primary);
                    }
                    elsewhere = self.elsewhere() => {
                        let old = std::mem::replace(&mut live, elsewhere);
                        tracing::info!(
                            parent: old.tunnel.span(),
                            "tunnel replaced by one to another instance of the gateway"
                        );
                        self.shared.retire(&old, &self.primary);
                    }
                }
            };
        }
    }

    /// Opens a tunnel to the primary gateway, with a fallback tunnel meanwhile if the plan says so.
    async fn connect(
        &self,
        plan: Plan,
        siblings: Vec<Arc<GatewayState>>,
        steps: &mut Steps,
    ) -> Live {
        if !plan.fallback {
            return self.reach_primary(plan, steps).await;
        }
        tokio::select! {
            biased;
            live = self.reach_primary(plan, steps) => live,
            never = self.keep_fallback(plan.fallback_wait, siblings) => match never {},
        }
    }

    /// Dials the primary gateway until it accepts.
    async fn reach_primary(&self, mut plan: Plan, steps: &mut Steps) -> Live {
        loop {
            // The status shows the draining tunnel until it is replaced.
            if plan.draining {
                self.set_state(LinkState::Draining);
                self.wait(plan, steps).await;
            } else {
                self.back_off(plan, steps).await;
                self.set_state(LinkState::Connecting);
            }
            match self.attempt(&self.primary).await {
                Ok(live) => {
                    self.set_connected(&live);
                    return live;
                }
                Err(error) => {
                    let reason = DownReason::NotOpened(error);
                    plan = Plan::after_failure(&reason, steps, &mut fastrand::f64);
                    self.report(reason, plan);
                    self.shared.wake_calls();
                }
            }
        }
    }

    pub(super) async fn back_off(&self, plan: Plan, steps: &Steps) {
        if plan.wait.is_zero() {
            return;
        }
        self.set_state(LinkState::BackingOff {
            until: (Instant::now() + plan.wait).into_std(),
            refused: plan.refused,
        });
        // Calls that wait are notified of a refusal at once.
        self.shared.wake_calls();
        let since = Instant::now();
        self.wait(plan, steps).await;
        telemetry::backing_off(self.shared.direction(), since.elapsed());
    }

    /// Waits as planned. If calls wait for a tunnel, the wait is at most the first step; while a sibling is to take
    /// the calls, if that does not accept the tunnel.
    async fn wait(&self, plan: Plan, steps: &Steps) {
        let now = Instant::now();
        let until = now + plan.wait;
        let soon = now + steps.first(&mut fastrand::f64).max(plan.least);
        tokio::select! {
            biased;
            () = sleep_until(until) => {}
            () = self.hurried(plan), if soon < until && !plan.refused => sleep_until(soon).await,
        }
    }

    /// Waits until there is a reason to shorten a wait.
    async fn hurried(&self, plan: Plan) {
        match plan.siblings {
            true => self.no_sibling.notified().await,
            false => self.wanted().await,
        }
    }

    /// Waits until calls wait for a tunnel.
    async fn wanted(&self) {
        self.primary.wanted[self.index].notified().await;
    }

    /// Waits until the tunnel has reached its maximum age, and opens the next one.
    async fn replacement(&self) -> Live {
        let Some(age) = self.shared.settings.max_tunnel_age else {
            return std::future::pending().await;
        };
        let part = LEAST_AGE + (1.0 - LEAST_AGE) * fastrand::f64();
        sleep(age.min(OLDEST).mul_f64(part)).await;
        let mut steps = Steps::new(&self.shared.settings.backoff);
        loop {
            match self.attempt(&self.primary).await {
                Ok(live) => {
                    self.set_connected(&live);
                    return live;
                }
                Err(error) => {
                    let reason = DownReason::NotOpened(error);
                    let plan = Plan::after_failure(&reason, &mut steps, &mut fastrand::f64);
                    self.report(reason, plan);
                    sleep(plan.wait).await;
                }
            }
        }
    }

    /// Notes how a tunnel ended, or that it is draining. Returns the plan for the next one.
    fn after(
        &self,
        live: &Live,
        reason: Option<EndReason>,
        siblings: bool,
        steps: &mut Steps,
    ) -> Plan {
        let plan = self.plan_after(live, reason.as_ref(), siblings, steps);
        match reason {
            Some(reason) => self.report(DownReason::Ended(reason), plan),
            None => self.note(DownReason::Ended(EndReason::PeerDrained)),
        }
        plan
    }

    fn plan_after(
        &self,
        live: &Live,
        reason: Option<&EndReason>,
        siblings: bool,
        steps: &mut Steps,
    ) -> Plan {
        let beside = Beside {
            gateways: !self.shared.gateways.others(&self.primary).is_empty(),
            siblings,
            tunnel: self.has_another_tunnel(),
        };
        let (open, told) = (live.open_for(), live.told());
        Plan::after_tunnel(reason, open, beside, told, steps, &mut fastrand::f64)
    }

    /// Whether calls can arrive by another link.
    fn has_another_tunnel(&self) -> bool {
        let links = self.shared.status_tx.borrow();
        let is_other = |link: &&LinkStatus| link.number != self.number && !link.removed;
        let mut others = links.iter().filter(is_other);
        others.any(LinkStatus::is_connected)
    }

    /// The siblings that the gateway of a tunnel has told with its drain, in the order to try them: random.
    fn siblings(&self, live: &Live) -> Vec<Arc<GatewayState>> {
        let told = live.tunnel.told().siblings;
        let mut siblings = live.gateway.siblings(&told);
        fastrand::shuffle(&mut siblings);
        let links = self.shared.status_tx.borrow();
        // Those that the device has a tunnel to are last.
        siblings.sort_by_key(|sibling| links.iter().any(|link| leads_to(link, sibling)));
        siblings
    }

    /// Waits until a tunnel takes no new calls, and learns from it. Returns why it ended, if it did.
    async fn over(&self, live: &Live) -> Option<EndReason> {
        let reason = live.over().await;
        self.shared.learn(live, reason.as_ref());
        reason
    }

    /// Keeps a fallback tunnel open, if a sibling or another gateway accepts one.
    async fn keep_fallback(
        &self,
        wait: Duration,
        mut siblings: Vec<Arc<GatewayState>>,
    ) -> Infallible {
        sleep(wait).await;
        let mut steps = Steps::new(&self.shared.settings.backoff);
        loop {
            let mut least = Duration::ZERO;
            let found = self.find_fallback(&siblings, &steps, &mut least).await;
            let wait = match found {
                Some(fallback) => {
                    let live = &fallback.live;
                    let over = tokio::select! {
                        biased;
                        reason = self.over(live) => Some(reason),
                        () = live.gateway.removed() => None,
                    };
                    match over {
                        Some(reason) => {
                            let told = self.siblings(live);
                            if !told.is_empty() {
                                siblings = told;
                            }
                            // Whether it has siblings matters to the primary alone.
                            self.plan_after(live, reason.as_ref(), false, &mut steps)
                                .wait
                        }
                        // Nothing has failed.
                        None => Duration::ZERO,
                    }
                }
                None => steps.after_failure(&mut fastrand::f64).max(least),
            };
            // While a sibling is to take the calls, those that wait do not bring the primary forward.
            let wanted = async {
                match siblings.is_empty() {
                    true => std::future::pending().await,
                    false => self.wanted().await,
                }
            };
            tokio::select! {
                biased;
                () = sleep(wait) => {}
                () = wanted => sleep(steps.first(&mut fastrand::f64).max(least).min(wait)).await,
            }
        }
    }

    /// Opens a tunnel to the first sibling that accepts one, or to the first other gateway, except those known to
    /// be away. `least` becomes the time that those who refuse ask for.
    async fn find_fallback(
        &self,
        siblings: &[Arc<GatewayState>],
        steps: &Steps,
        least: &mut Duration,
    ) -> Option<Fallback<'_>> {
        let mut failed = |error| {
            let reason = DownReason::NotOpened(error);
            *least = steps.least_after(&reason, &mut fastrand::f64).max(*least);
            self.note(reason);
        };
        for sibling in siblings {
            match self.attempt(sibling).await {
                Ok(live) => return Some(Fallback::new(self, live)),
                Err(error) => failed(error),
            }
            // The primary's turn, which waits because a sibling was expected to take the calls.
            self.no_sibling.notify_one();
        }
        for gateway in self.shared.gateways.others(&self.primary) {
            if gateway.standing() == Standing::Away {
                continue;
            }
            match self.attempt(&gateway).await {
                Ok(live) => return Some(Fallback::new(self, live)),
                Err(error) => failed(error),
            }
        }
        None
    }

    pub(super) async fn attempt(&self, gateway: &Arc<GatewayState>) -> Result<Live, TunnelError> {
        let mut attempt = None;
        self.update(|status| {
            status.attempts += 1;
            attempt = Some((status.attempts, status.last_down_reason.clone()));
        });
        let (number, last_down_reason) = attempt.unwrap_or_default();
        let attempt = Attempt {
            gateway: gateway.name.clone(),
            number,
            last_down_reason,
        };
        let link = Some(self.number);
        self.shared.open(gateway, link, attempt).await
    }

    /// Logs why there is no tunnel, and when the next attempt is made.
    fn report(&self, reason: DownReason, plan: Plan) {
        let gateway = &self.primary.name;
        let wait = plan.wait;
        if plan.refused {
            tracing::warn!(
                %gateway, %reason, retry_within_s = wait.as_secs_f64(),
                "tunnel refused by the gateway, retrying slowly"
            );
        } else {
            tracing::info!(%gateway, %reason, retry_within_s = wait.as_secs_f64(), "tunnel not open, retrying");
        }
        self.note(reason);
    }

    pub(super) fn note(&self, reason: DownReason) {
        self.update(|status| status.last_down_reason = Some(reason));
    }

    /// Shows the link no more.
    pub(super) fn hide(&self) {
        let others = |links: &mut Vec<LinkStatus>| links.retain(|link| link.number != self.number);
        self.shared.status_tx.send_modify(others);
    }

    pub(super) fn set_connected(&self, live: &Live) {
        if live.tunnel.end_reason().is_none() {
            let info = live.tunnel.info();
            self.primary
                .seats
                .send_modify(|seats| seats.sit(self.index, info));
            self.set_state(LinkState::Connected(live.tunnel.info().clone()));
        }
    }

    pub(super) fn set_state(&self, state: LinkState) {
        self.update(|status| status.state = state);
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut LinkStatus)) {
        self.shared.status_tx.send_modify(|links| {
            let own = links.iter_mut().find(|link| link.number == self.number);
            own.map(change);
        });
    }
}

/// Whether a link has a tunnel to a sibling, which may be one of the addresses of a name.
fn leads_to(link: &LinkStatus, sibling: &GatewayState) -> bool {
    let own = match &link.state {
        LinkState::Connected(tunnel) => Some((&link.gateway, tunnel)),
        _ => None,
    };
    let fallback = link.fallback_tunnel.as_ref();
    let fallback = fallback.map(|fallback| (&fallback.gateway, &fallback.tunnel));
    let address = sibling.gateway.address();
    let mut tunnels = own.into_iter().chain(fallback);
    tunnels.any(|(gateway, tunnel)| {
        *gateway == sibling.name || (address.is_some() && tunnel.peer_addr() == address)
    })
}

/// A fallback tunnel. Dropping it drains the tunnel, unless the primary gateway was removed: then the link drains all
/// its tunnels together.
struct Fallback<'a> {
    link: &'a Link,
    live: Live,
}

impl<'a> Fallback<'a> {
    fn new(link: &'a Link, live: Live) -> Self {
        link.update(|status| {
            status.fallback_tunnel = Some(FallbackTunnel {
                gateway: live.gateway.name.clone(),
                tunnel: live.tunnel.info().clone(),
            });
        });
        Self { link, live }
    }
}

impl Drop for Fallback<'_> {
    fn drop(&mut self) {
        self.link.update(|status| status.fallback_tunnel = None);
        if !self.link.primary.is_removed() {
            self.link.shared.retire(&self.live, &self.link.primary);
        }
    }
}
