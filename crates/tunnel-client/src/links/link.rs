//! One link: the loop that keeps one tunnel up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
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
    shared: Arc<Shared>,
    /// Its number among all links of the server or channel.
    number: usize,
    /// The number of its primary gateway.
    primary: usize,
    /// Its number among the links of that gateway.
    index: usize,
    /// Notified when a sibling does not accept the fallback tunnel.
    no_sibling: Notify,
}

impl Shared {
    /// Makes the links, and publishes their statuses.
    pub(crate) fn links(self: &Arc<Self>) -> Vec<Link> {
        let count = self.settings.tunnels_per_gateway;
        let gateways = 0..self.gateways.len();
        let of_gateway = gateways.flat_map(|gateway| (0..count).map(move |n| (gateway, n)));
        let links = of_gateway.enumerate();
        let links = links.map(|(number, (gateway, n))| Link::new(self.clone(), number, gateway, n));
        let links: Vec<_> = links.collect();
        self.status_tx
            .send_replace(links.iter().map(Link::status).collect());
        links
    }

    /// Runs links until they are stopped and their tunnels are closed.
    pub(crate) async fn run(&self, links: Vec<Link>) -> StopReason {
        let mut running: FuturesUnordered<_> = links.into_iter().map(Link::run).collect();
        while running.next().await.is_some() {}
        self.registry.stopped().await
    }
}

impl Link {
    fn new(shared: Arc<Shared>, number: usize, primary: usize, index: usize) -> Self {
        Self {
            shared,
            number,
            primary,
            index,
            no_sibling: Notify::new(),
        }
    }

    /// Its status before it runs.
    fn status(&self) -> LinkStatus {
        LinkStatus::new(self.shared.gateways[self.primary].name.clone(), self.index)
    }

    /// Keeps the tunnel up until the links are stopped, then waits until the tunnel is closed.
    async fn run(self) {
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
                        siblings = self.siblings(&live);
                        break self.after(&live, reason, !siblings.is_empty(), &mut steps);
                    }
                    younger = self.replacement() => {
                        let old = std::mem::replace(&mut live, younger);
                        tracing::info!(
                            parent: old.tunnel.span(),
                            "tunnel reached its maximum age, replaced"
                        );
                        self.shared.retire(&old, self.primary);
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
            match self.attempt(self.primary).await {
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

    async fn back_off(&self, plan: Plan, steps: &Steps) {
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
            false => self.shared.wanted(self.number).await,
        }
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
            match self.attempt(self.primary).await {
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
            gateways: self.shared.gateways.len() > 1,
            siblings,
            tunnel: self.has_another_tunnel(),
        };
        let (open, told) = (live.open_for(), live.told());
        Plan::after_tunnel(reason, open, beside, told, steps, &mut fastrand::f64)
    }

    /// Whether calls can arrive by another link.
    fn has_another_tunnel(&self) -> bool {
        let links = self.shared.status_tx.borrow();
        let mut others = links.iter().enumerate().filter(|(n, _)| *n != self.number);
        others.any(|(_, link)| link.is_connected())
    }

    /// The siblings that the gateway of a tunnel has told with its drain, in the order to try them: random.
    fn siblings(&self, live: &Live) -> Vec<Arc<GatewayState>> {
        let told = live.tunnel.told().siblings;
        let mut siblings = self.shared.gateway_of(live).siblings(&told);
        fastrand::shuffle(&mut siblings);
        let links = self.shared.status_tx.borrow();
        // Those that the device has a tunnel to are last.
        siblings.sort_by_key(|sibling| {
            let mut links = links.iter();
            links.any(|link| link.gateway == sibling.name && link.is_connected())
        });
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
                    let reason = self.over(&fallback.live).await;
                    let told = self.siblings(&fallback.live);
                    if !told.is_empty() {
                        siblings = told;
                    }
                    // Whether it has siblings matters to the primary alone.
                    let plan = self.plan_after(&fallback.live, reason.as_ref(), false, &mut steps);
                    plan.wait
                }
                None => steps.after_failure(&mut fastrand::f64).max(least),
            };
            // While a sibling is to take the calls, those that wait do not bring the primary forward.
            let wanted = async {
                match siblings.is_empty() {
                    true => std::future::pending().await,
                    false => self.shared.wanted(self.number).await,
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
            let attempt = self.next_attempt(sibling);
            let (shared, link) = (&self.shared, Some(self.number));
            let opened = shared.open_sibling(sibling, self.primary, link, attempt);
            match opened.await {
                Ok(live) => return Some(Fallback::new(self, live)),
                Err(error) => failed(error),
            }
            // The primary's turn, which waits because a sibling was expected to take the calls.
            self.no_sibling.notify_one();
        }
        let count = self.shared.gateways.len();
        for gateway in (1..count).map(|step| (self.primary + step) % count) {
            if self.shared.gateways[gateway].standing() == Standing::Away {
                continue;
            }
            match self.attempt(gateway).await {
                Ok(live) => return Some(Fallback::new(self, live)),
                Err(error) => failed(error),
            }
        }
        None
    }

    async fn attempt(&self, gateway: usize) -> Result<Live, TunnelError> {
        let attempt = self.next_attempt(&self.shared.gateways[gateway]);
        self.shared.open(gateway, Some(self.number), attempt).await
    }

    /// Counts one more attempt.
    fn next_attempt(&self, gateway: &GatewayState) -> Attempt {
        let mut attempt = None;
        self.update(|status| {
            status.attempts += 1;
            attempt = Some((status.attempts, status.last_down_reason.clone()));
        });
        let (number, last_down_reason) = attempt.unwrap_or_default();
        Attempt {
            gateway: gateway.name.clone(),
            number,
            last_down_reason,
        }
    }

    /// Logs why there is no tunnel, and when the next attempt is made.
    fn report(&self, reason: DownReason, plan: Plan) {
        let gateway = &self.shared.gateways[self.primary].name;
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

    fn note(&self, reason: DownReason) {
        self.update(|status| status.last_down_reason = Some(reason));
    }

    fn set_connected(&self, live: &Live) {
        if live.tunnel.end_reason().is_none() {
            self.set_state(LinkState::Connected(live.tunnel.info().clone()));
        }
    }

    fn set_state(&self, state: LinkState) {
        self.update(|status| status.state = state);
    }

    fn update(&self, change: impl FnOnce(&mut LinkStatus)) {
        self.shared.status_tx.send_modify(|links| {
            if let Some(status) = links.get_mut(self.number) {
                change(status);
            }
        });
    }
}

/// A fallback tunnel. Dropping it drains the tunnel.
struct Fallback<'a> {
    link: &'a Link,
    live: Live,
}

impl<'a> Fallback<'a> {
    fn new(link: &'a Link, live: Live) -> Self {
        link.update(|status| {
            status.fallback_tunnel = Some(FallbackTunnel {
                gateway: link.shared.gateway_of(&live).name.clone(),
                tunnel: live.tunnel.info().clone(),
            });
        });
        Self { link, live }
    }
}

impl Drop for Fallback<'_> {
    fn drop(&mut self) {
        self.link.update(|status| status.fallback_tunnel = None);
        self.link.shared.retire(&self.live, self.link.primary);
    }
}
