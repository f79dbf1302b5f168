//! The state that links and their handles share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tunnel_core::EndReason;
use tunnel_tonic::pool::Pool;
use tunnel_tonic::{CallService, Direction, Tunnel, TunnelChannel, TunnelError, TunnelInfo};

use super::gateway_state::{Activity, GatewayState, Standing};
use super::gateways::Gateways;
use super::reconnect::Told;
use super::registry::Registry;
use super::seats::Seats;
use super::settings::{Attempt, Settings};
use super::status::{DownReason, LinkState, LinkStatus, StopReason};
use crate::dial::{Accepted, dial, not_opened, with_timeout};
use crate::gateway::Gateway;

/// How long a reverse tunnel goes on after its replacement was accepted by a gateway of another
/// implementation. Such a gateway calls through the replacement after it has received the settings, and does not
/// say when that is.
const HANDOVER: Duration = Duration::from_secs(1);

/// What an open tunnel is used for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A reverse tunnel: its calls are served.
    Serve(CallService),
    /// A forward tunnel: it joins a pool.
    Call(Arc<Pool>),
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) gateways: Gateways,
    pub(crate) registry: Arc<Registry>,
    /// The states of the links. Empty before they run.
    pub(crate) status_tx: watch::Sender<Vec<LinkStatus>>,
    purpose: Purpose,
    /// The number of attempts begun.
    begun: AtomicU64,
    /// The number of the latest attempt that has failed, from 1.
    failed: AtomicU64,
}

/// A tunnel that was opened. A forward tunnel leaves its pool when this is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) tunnel: Tunnel,
    /// Also a sibling.
    pub(crate) gateway: Arc<GatewayState>,
    since: Instant,
    activity: Activity,
    /// The spread of the return that was told at opening.
    return_spread: Option<Duration>,
    /// Whether its pings were slowed down.
    slow: bool,
    _member: Option<Member>,
}

/// A tunnel's membership in a pool. Dropping it removes the tunnel.
#[derive(Debug)]
struct Member {
    pool: Arc<Pool>,
    channel: TunnelChannel,
}

impl Member {
    fn join(pool: &Arc<Pool>, channel: TunnelChannel) -> Self {
        pool.join(&channel);
        pool.wake();
        let pool = pool.clone();
        Self { pool, channel }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pool.leave(self.channel.id());
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings, gateways: Vec<Gateway>, purpose: Purpose) -> Arc<Self> {
        Arc::new(Self {
            gateways: Gateways::new(gateways, settings.tunnels_per_gateway),
            settings,
            registry: Registry::new(),
            status_tx: watch::Sender::new(Vec::new()),
            purpose,
            begun: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Opens a tunnel to a gateway or a sibling, for a link or for none.
    pub(crate) async fn open(
        &self,
        state: &Arc<GatewayState>,
        link: Option<usize>,
        attempt: Attempt,
    ) -> Result<Live, TunnelError> {
        tracing::debug!(gateway = %state.name, attempt = attempt.number, "opening a tunnel");
        let number = self.begin_attempt();
        // Boxed, because otherwise the compiler cannot prove that the callers' futures are `Send`.
        let opening: BoxFuture<'_, _> = Box::pin(self.try_open(state, link, attempt));
        let result = opening.await;
        if result.is_err() {
            self.attempt_failed(number);
            state.doubt_address();
        }
        match &result {
            Ok(_) => state.set_standing(Standing::Good),
            // The gateway was not dialled.
            Err(TunnelError::Credentials(_)) => {}
            Err(error) => {
                state.set_standing(Standing::Away);
                state.learn_from_failure(error);
            }
        }
        result
    }

    /// Counts an attempt, and returns its number, from 1.
    pub(crate) fn begin_attempt(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn attempt_failed(&self, number: u64) {
        self.failed.fetch_max(number, Ordering::Relaxed);
    }

    async fn try_open(
        &self,
        state: &Arc<GatewayState>,
        link: Option<usize>,
        attempt: Attempt,
    ) -> Result<Live, TunnelError> {
        let Settings {
            credentials,
            config,
            open_timeout,
            ..
        } = &self.settings;
        let metadata = credentials.for_attempt(attempt, *open_timeout).await;
        let info = |metadata| {
            let info = TunnelInfo::new(self.direction(), metadata, None, None);
            info.with_gateway(state.name.clone())
        };
        let metadata = metadata.inspect_err(|error| {
            self.report_failure(info(MetadataMap::new()), error);
        })?;
        let info = info(metadata);
        let config = match state.gateway.own_keepalive() {
            Some(keepalive) => keepalive.heartbeats(config),
            None => config.clone(),
        };
        let opened = with_timeout(*open_timeout, async {
            let slow = state.is_slow();
            let channel = state.gateway.channel(slow, *open_timeout).await?;
            let send = self.settings.send;
            let accepted = dial(info.clone(), config, send, channel).await?;
            self.start(state, link, accepted, slow).await
        })
        .await;
        opened.inspect_err(|error| self.report_failure(info, error))
    }

    fn report_failure(&self, info: TunnelInfo, error: &TunnelError) {
        not_opened(info.direction(), error);
        self.registry.reporter.not_opened(info, error.clone());
    }

    /// The direction of the tunnels.
    pub(crate) fn direction(&self) -> Direction {
        match &self.purpose {
            Purpose::Serve(_) => Direction::Reverse,
            Purpose::Call(_) => Direction::Forward,
        }
    }

    /// Opens the single tunnel of [`serve`](crate::ReverseTunnelServer::serve), with a status as if it were a link.
    pub(crate) async fn open_single(&self) -> Result<(Live, Single<'_>), TunnelError> {
        let gateway = self.gateways.first().ok_or_else(no_gateway)?;
        let single = Single::new(self, gateway.name.clone());
        let attempt = Attempt {
            gateway: gateway.name.clone(),
            number: 1,
            last_down_reason: None,
        };
        let live = self.open(&gateway, None, attempt).await?;
        single.set_connected(&live);
        Ok((live, single))
    }

    /// Starts a tunnel that a gateway has accepted, and waits until it can be used.
    async fn start(
        &self,
        gateway: &Arc<GatewayState>,
        link: Option<usize>,
        accepted: Accepted,
        slow: bool,
    ) -> Result<Live, TunnelError> {
        let tunnel = accepted.tunnel.tunnel();
        let Some(entry) = self.registry.insert(tunnel, link) else {
            return Err(TunnelError::Ended(self.stopped_as()));
        };
        let activity = Activity::now();
        let body = Body::new(activity.listen(accepted.body));
        let service = match &self.purpose {
            Purpose::Serve(calls) => Some((calls.clone(), accepted.extensions)),
            Purpose::Call(_) => None,
        };
        if let Some(inject) = &self.settings.inject {
            tunnel.inject_trace(inject.clone());
        }
        let announces = accepted.offer.ready;
        if let Some(instances) = accepted.instances {
            let set = |seats: &mut Seats| seats.set_instances(instances);
            gateway.seats.send_modify(set);
        }
        accepted.inbound.start(accepted.offer, body, service, entry);
        let member = match &self.purpose {
            Purpose::Serve(_) => {
                gateway.set_announces(announces);
                if announces {
                    tunnel.routed().await;
                }
                None
            }
            Purpose::Call(pool) => {
                tunnel.ready().await?;
                Some(Member::join(pool, tunnel.channel()))
            }
        };
        match tunnel.end_reason() {
            // The wait ends with the tunnel too. The gateway had accepted it, so the caller treats this as its end.
            Some(reason) => {
                self.report_failure(tunnel.info().clone(), &TunnelError::Ended(reason));
            }
            None => self.registry.opened(tunnel),
        }
        Ok(Live {
            tunnel: accepted.tunnel.keep(),
            gateway: gateway.clone(),
            return_spread: accepted.return_spread,
            since: Instant::now(),
            activity,
            slow,
            _member: member,
        })
    }

    /// The end reason of a tunnel that was not used because the links were stopped.
    fn stopped_as(&self) -> EndReason {
        match self.registry.stop_reason() {
            Some(StopReason::Drained) => EndReason::Drained,
            _ => EndReason::Closed,
        }
    }

    /// Notes how a tunnel ended, or that its gateway drains it.
    pub(crate) fn learn(&self, live: &Live, reason: Option<&EndReason>) {
        let gateway = &live.gateway;
        gateway.doubt_address();
        match reason {
            None | Some(EndReason::PeerDrained | EndReason::PeerClosed) => {
                gateway.set_standing(Standing::Away);
            }
            Some(_) => {}
        }
        if let Some(reason) = reason {
            gateway.learn(live.slow, reason, live.activity.silence());
        }
    }

    /// Drains a tunnel that has been replaced by one to this gateway. If that gateway may not route calls to the
    /// replacement yet, the tunnel goes on for [`HANDOVER`] first.
    pub(crate) fn retire(&self, live: &Live, by: &GatewayState) {
        let (tunnel, timeout) = (live.tunnel.clone(), self.settings.drain_timeout);
        let serves = !matches!(self.purpose, Purpose::Call(_));
        match Handle::try_current() {
            Ok(runtime) if serves && !by.announces() => {
                runtime.spawn(async move {
                    tokio::time::sleep(HANDOVER).await;
                    tunnel.drain(deadline(timeout));
                });
            }
            _ => tunnel.drain(deadline(timeout)),
        }
    }

    /// Drains a tunnel that is not used.
    pub(crate) fn discard(&self, live: &Live) {
        live.tunnel.drain(deadline(self.settings.drain_timeout));
    }

    /// Drains the tunnels of a link whose gateway was removed. If they were replaced, and another gateway may not
    /// route calls to the replacement yet, they go on for [`HANDOVER`] first.
    pub(crate) async fn retire_link(&self, gateway: &GatewayState, link: usize, replaced: bool) {
        let serves = !matches!(self.purpose, Purpose::Call(_));
        let mut others = self.gateways.others(gateway).into_iter();
        if serves && replaced && others.any(|other| !other.announces()) {
            tokio::time::sleep(HANDOVER).await;
        }
        for tunnel in self.registry.tunnels_of(link) {
            tunnel.drain(deadline(self.settings.drain_timeout));
        }
    }

    /// Wakes the calls that wait for a tunnel.
    pub(crate) fn wake_calls(&self) {
        if let Purpose::Call(pool) = &self.purpose {
            pool.wake();
        }
    }

    /// Tells the links that calls wait for a tunnel, so that they shorten their backoff.
    pub(crate) fn want(&self) {
        for gateway in self.gateways.all() {
            gateway.wanted.iter().for_each(Notify::notify_one);
        }
    }

    /// The number of attempts begun.
    pub(crate) fn attempts_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether an attempt has failed that began after the first `begun` attempts.
    pub(crate) fn has_failed_since(&self, begun: u64) -> bool {
        self.failed.load(Ordering::Relaxed) > begun
    }

    /// Whether all gateways refuse with a lasting refusal, or there is none.
    pub(crate) fn all_refused(&self) -> bool {
        let links = self.status_tx.borrow();
        let mut wanted = links.iter().filter(|link| !link.removed);
        wanted.all(|link| matches!(link.state, LinkState::BackingOff { refused: true, .. }))
    }

    /// Why there is no tunnel: the last reason of the first link that has one.
    pub(crate) fn last_down_reason(&self) -> Option<DownReason> {
        let links = self.status_tx.borrow();
        links.iter().find_map(|link| link.last_down_reason.clone())
    }

    /// Drains all tunnels and stops the links.
    pub(crate) fn drain(&self, timeout: Duration) {
        let deadline = deadline(timeout);
        self.registry
            .stop(StopReason::Drained, |tunnel| tunnel.drain(deadline));
        self.wake_calls();
    }

    /// Closes all tunnels and stops the links.
    pub(crate) fn close(&self, reason: StopReason) {
        self.registry.stop(reason, Tunnel::close);
        self.wake_calls();
    }

    /// Drains all tunnels without a deadline and stops the links, when no more calls can be made.
    pub(crate) fn abandon(&self) {
        self.registry
            .stop(StopReason::Dropped, |tunnel| tunnel.drain(None));
    }

    /// Shows all links as stopped, including those that were dropped.
    pub(crate) fn all_stopped(&self) {
        let Some(reason) = self.registry.stop_reason() else {
            return;
        };
        self.status_tx.send_modify(|links| {
            links.retain(|link| !link.removed);
            for link in links {
                link.state = LinkState::Stopped(reason);
            }
        });
    }
}

/// The status of a single tunnel. Dropping it removes the status.
pub(crate) struct Single<'a> {
    shared: &'a Shared,
    index: usize,
}

impl<'a> Single<'a> {
    fn new(shared: &'a Shared, gateway: Arc<str>) -> Self {
        let mut index = 0;
        shared.status_tx.send_modify(|links| {
            index = links.last().map_or(0, |link| link.index + 1);
            let mut status = LinkStatus::new(index, gateway, index);
            status.attempts = 1;
            links.push(status);
        });
        Self { shared, index }
    }

    fn set_connected(&self, live: &Live) {
        if live.tunnel.end_reason().is_some() {
            return;
        }
        let info = live.tunnel.info().clone();
        self.shared.status_tx.send_modify(|links| {
            let own = links.iter_mut().find(|link| link.index == self.index);
            if let Some(own) = own {
                own.state = LinkState::Connected(info);
            }
        });
    }
}

impl Drop for Single<'_> {
    fn drop(&mut self) {
        let index = self.index;
        let remove = |links: &mut Vec<LinkStatus>| links.retain(|link| link.index != index);
        self.shared.status_tx.send_modify(remove);
    }
}

fn no_gateway() -> TunnelError {
    TunnelError::Channel(Status::unavailable("there is no gateway"))
}

/// The deadline after a timeout, by the clock of the tunnels' timers; `None` if it is beyond the clock's
/// range.
fn deadline(timeout: Duration) -> Option<std::time::Instant> {
    Instant::now().into_std().checked_add(timeout)
}

impl Live {
    /// How long it has been open.
    pub(crate) fn open_for(&self) -> Duration {
        self.since.elapsed()
    }

    /// What its gateway has told.
    pub(crate) fn told(&self) -> Told {
        let notice = self.tunnel.told();
        Told {
            return_spread: notice.return_spread.or(self.return_spread),
            grace: notice.grace,
        }
    }

    /// Waits until it takes no new calls. Returns why it ended; `None` if it is only draining.
    pub(crate) async fn over(&self) -> Option<EndReason> {
        self.tunnel.draining().await;
        self.tunnel.end_reason()
    }
}
