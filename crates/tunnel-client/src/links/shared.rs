//! State that links and their handles share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::body::Body;
use tunnel_core::EndReason;
use tunnel_tonic::pool::Pool;
use tunnel_tonic::{CallService, Direction, Tunnel, TunnelChannel, TunnelError};

use super::activity::Activity;
use super::credentials::Attempt;
use super::gateway_state::{GatewayState, Standing};
use super::registry::Registry;
use super::settings::Settings;
use super::status::{LinkError, LinkState, LinkStatus, StopReason};
use crate::Gateway;
use crate::dial::{Opening, within};

/// How long a reverse tunnel goes on after its replacement was accepted: the gateway uses the
/// replacement only after it has received its settings, which this end cannot see.
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
    pub(crate) gateways: Vec<GatewayState>,
    pub(crate) registry: Arc<Registry>,
    /// The states of the links; empty before they run.
    pub(crate) status_tx: watch::Sender<Vec<LinkStatus>>,
    purpose: Purpose,
    /// For each link, whether calls wait for it.
    wanted: Vec<Notify>,
    /// How many attempts were begun.
    begun: AtomicU64,
    /// The latest attempt that has failed, counted from 1.
    failed: AtomicU64,
}

/// A tunnel that was open when this was made. While this is kept, it is in its pool.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) tunnel: Tunnel,
    pub(crate) gateway: usize,
    since: Instant,
    activity: Activity,
    /// Whether it was dialled for a gateway that does not want many pings.
    slow: bool,
    _member: Option<Member>,
}

/// A tunnel's place in the pool, which it leaves when this is dropped.
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
        let links = gateways.len() * settings.tunnels_per_gateway;
        let gateways = gateways.into_iter().enumerate();
        Arc::new(Self {
            settings,
            gateways: gateways.map(|(n, g)| GatewayState::new(g, n)).collect(),
            registry: Registry::new(),
            status_tx: watch::Sender::new(Vec::new()),
            purpose,
            wanted: (0..links).map(|_| Notify::new()).collect(),
            begun: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Opens a tunnel to a gateway, for a link or for none.
    pub(crate) async fn open(
        &self,
        gateway: usize,
        link: Option<usize>,
        attempt: Attempt,
    ) -> Result<Live, TunnelError> {
        let state = &self.gateways[gateway];
        tracing::debug!(gateway = %state.name, attempt = attempt.number, "opening a tunnel");
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        // Erased here, where its lifetimes are known: a caller could not tell that it is `Send`.
        let opening: BoxFuture<'_, _> = Box::pin(self.try_open(state, gateway, link, attempt));
        let result = opening.await;
        if result.is_err() {
            self.failed.fetch_max(number, Ordering::Relaxed);
        }
        match &result {
            Ok(_) => state.set_standing(Standing::Good),
            // Not the gateway's fault: it was not asked.
            Err(TunnelError::Credentials(_)) => {}
            Err(error) => {
                state.set_standing(Standing::Away);
                state.learn_from_failure(error);
            }
        }
        result
    }

    async fn try_open(
        &self,
        state: &GatewayState,
        gateway: usize,
        link: Option<usize>,
        attempt: Attempt,
    ) -> Result<Live, TunnelError> {
        let Settings {
            credentials,
            config,
            open_timeout,
            ..
        } = &self.settings;
        let metadata = credentials.for_attempt(attempt, *open_timeout).await?;
        let direction = match &self.purpose {
            Purpose::Serve(_) => Direction::Reverse,
            Purpose::Call(_) => Direction::Forward,
        };
        let config = match state.gateway.own_keepalive() {
            Some(keepalive) => keepalive.heartbeats(config),
            None => config.clone(),
        };
        let opening = Opening::new(direction, metadata, config);
        within(*open_timeout, self.dial(state, gateway, link, opening)).await
    }

    async fn dial(
        &self,
        state: &GatewayState,
        gateway: usize,
        link: Option<usize>,
        opening: Opening,
    ) -> Result<Live, TunnelError> {
        let slow = state.is_slow();
        let channel = state
            .gateway
            .channel(slow, self.settings.open_timeout)
            .await?;
        let answer = opening.call(channel).await?;
        let tunnel = opening.tunnel();
        let name = state.name.clone();
        let Some(entry) = self.registry.insert(tunnel, link, name) else {
            return Err(TunnelError::Ended(self.stopped_as()));
        };
        let activity = Activity::now();
        let inbound = Body::new(activity.listen(answer.inbound));
        let service = match &self.purpose {
            Purpose::Serve(calls) => Some((calls.clone(), answer.extensions)),
            Purpose::Call(_) => None,
        };
        tunnel.start(answer.offer, inbound, service, entry);
        let member = match &self.purpose {
            Purpose::Serve(_) => None,
            Purpose::Call(pool) => {
                tunnel.ready().await.map_err(TunnelError::Ended)?;
                Some(Member::join(pool, tunnel.channel()))
            }
        };
        let id = tunnel.info().id();
        tracing::info!(tunnel = %id, gateway = %state.name, "tunnel connected");
        Ok(Live {
            tunnel: opening.succeeded(),
            gateway,
            since: Instant::now(),
            activity,
            slow,
            _member: member,
        })
    }

    /// How a tunnel ended that was not taken because the links were stopped.
    fn stopped_as(&self) -> EndReason {
        match self.registry.stop_reason() {
            Some(StopReason::Drained) => EndReason::Drained,
            _ => EndReason::Closed,
        }
    }

    /// Takes note of how a tunnel ended, and that its gateway drains.
    pub(crate) fn learn(&self, live: &Live, reason: Option<&EndReason>) {
        let gateway = &self.gateways[live.gateway];
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

    /// Drains a tunnel that has been replaced. One that serves goes on for [`HANDOVER`] first.
    pub(crate) fn retire(&self, live: &Live) {
        let (tunnel, within) = (live.tunnel.clone(), self.settings.drain_deadline);
        let serves = !matches!(self.purpose, Purpose::Call(_));
        match Handle::try_current() {
            Ok(runtime) if serves => {
                runtime.spawn(async move {
                    tokio::time::sleep(HANDOVER).await;
                    tunnel.drain(deadline(within));
                });
            }
            _ => tunnel.drain(deadline(within)),
        }
    }

    /// Has calls that wait for a tunnel look again.
    pub(crate) fn wake_calls(&self) {
        if let Purpose::Call(pool) = &self.purpose {
            pool.wake();
        }
    }

    /// Calls wait for a tunnel: links that back off do so no longer than they must.
    pub(crate) fn want(&self) {
        self.wanted.iter().for_each(Notify::notify_one);
    }

    /// Waits until calls wait for a tunnel.
    pub(crate) async fn wanted(&self, link: usize) {
        match self.wanted.get(link) {
            Some(wanted) => wanted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// How many attempts were begun.
    pub(crate) fn attempts_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether an attempt has failed that began after so many.
    pub(crate) fn has_failed_since(&self, begun: u64) -> bool {
        self.failed.load(Ordering::Relaxed) > begun
    }

    /// Whether all gateways refuse, with a status that will not change by itself.
    pub(crate) fn all_refused(&self) -> bool {
        let links = self.status_tx.borrow();
        links
            .iter()
            .all(|link| matches!(link.state, LinkState::BackingOff { refused: true, .. }))
    }

    /// What the links failed with last: the first of those that have.
    pub(crate) fn last_error(&self) -> Option<LinkError> {
        let links = self.status_tx.borrow();
        links.iter().find_map(|link| link.last_error.clone())
    }

    /// Drains all tunnels, for good.
    pub(crate) fn drain(&self, within: Duration) {
        let deadline = deadline(within);
        self.registry
            .stop(StopReason::Drained, |tunnel| tunnel.drain(deadline));
        self.wake_calls();
    }

    /// Closes all tunnels, for good.
    pub(crate) fn close(&self, reason: StopReason) {
        self.registry.stop(reason, Tunnel::close);
        self.wake_calls();
    }

    /// Nobody will make calls any more: those in flight go on, without a deadline.
    pub(crate) fn abandon(&self) {
        self.registry
            .stop(StopReason::Dropped, |tunnel| tunnel.drain(None));
    }

    /// Shows all links as stopped, also those that were dropped.
    pub(crate) fn all_stopped(&self) {
        let Some(reason) = self.registry.stop_reason() else {
            return;
        };
        self.status_tx.send_modify(|links| {
            for link in links {
                link.state = LinkState::Stopped(reason);
            }
        });
    }
}

/// By the clock that the tunnels' timers go by; none if that is beyond all times.
fn deadline(within: Duration) -> Option<std::time::Instant> {
    Instant::now().into_std().checked_add(within)
}

impl Live {
    /// How long it has been open.
    pub(crate) fn open_for(&self) -> Duration {
        self.since.elapsed()
    }

    /// Waits until it takes no new calls. Says how it ended, unless it only drains.
    pub(crate) async fn over(&self) -> Option<EndReason> {
        self.tunnel.draining().await;
        self.tunnel.end_reason()
    }
}
