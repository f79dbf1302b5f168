//! What a server, its links and its handles have in common.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;
use tunnel_core::{Config, EndReason};
use tunnel_tonic::{CallService, Direction, Tunnel, TunnelError};

use super::credentials::{Attempt, Credentials};
use super::heard::Heard;
use super::place::{Place, Standing};
use super::registry::Registry;
use super::status::{LinkState, LinkStatus, StopReason};
use crate::Backoff;
use crate::dial::{Opening, within};

/// What a server was built with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tunnels_per_gateway: usize,
    pub(crate) credentials: Credentials,
    pub(crate) config: Config,
    pub(crate) open_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) stand_in_deadline: Duration,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) places: Vec<Place>,
    pub(crate) registry: Arc<Registry>,
    /// How the links stand; none before the server runs.
    pub(crate) board: watch::Sender<Vec<LinkStatus>>,
    calls: CallService,
}

/// A tunnel that was open when this was made.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) tunnel: Tunnel,
    pub(crate) place: usize,
    since: Instant,
    heard: Heard,
    /// Whether it was dialled for a gateway that does not want many pings.
    slow: bool,
}

impl Shared {
    pub(crate) fn new(settings: Settings, places: Vec<Place>, calls: CallService) -> Arc<Self> {
        Arc::new(Self {
            settings,
            places,
            registry: Registry::new(),
            board: watch::Sender::new(Vec::new()),
            calls,
        })
    }

    /// Opens a tunnel to a gateway, for a link or for none.
    pub(crate) async fn open(
        &self,
        place: usize,
        link: Option<usize>,
        attempt: Attempt,
    ) -> Result<Live, TunnelError> {
        let gateway = &self.places[place];
        tracing::debug!(gateway = %gateway.name, attempt = attempt.number, "opening a reverse tunnel");
        // Erased here, where its lifetimes are known: a caller could not tell that it is `Send`.
        let opening: BoxFuture<'_, _> = Box::pin(self.try_open(gateway, place, link, attempt));
        let result = opening.await;
        match &result {
            Ok(_) => gateway.set_standing(Standing::Good),
            // No fault of the gateway's, which was not even asked.
            Err(TunnelError::Credentials(_)) => {}
            Err(error) => {
                gateway.set_standing(Standing::Away);
                gateway.learn_from_failure(error);
            }
        }
        result
    }

    async fn try_open(
        &self,
        gateway: &Place,
        place: usize,
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
        let opening = Opening::new(Direction::Reverse, metadata, config.clone());
        within(*open_timeout, self.dial(gateway, place, link, opening)).await
    }

    async fn dial(
        &self,
        gateway: &Place,
        place: usize,
        link: Option<usize>,
        opening: Opening,
    ) -> Result<Live, TunnelError> {
        let slow = gateway.is_slow();
        let channel = gateway.gateway.channel(slow).await?;
        let answer = opening.call(channel).await?;
        let tunnel = opening.tunnel();
        let name = gateway.name.clone();
        let Some(entry) = self.registry.insert(tunnel, link, name) else {
            return Err(TunnelError::Ended(self.stopped_as()));
        };
        let heard = Heard::now();
        let inbound = Body::new(heard.listen(answer.inbound));
        let service = Some((self.calls.clone(), answer.extensions));
        tunnel.start(answer.offer, inbound, service, entry);
        let id = tunnel.info().id();
        tracing::info!(tunnel = %id, gateway = %gateway.name, "reverse tunnel connected");
        Ok(Live {
            tunnel: opening.succeeded(),
            place,
            since: Instant::now(),
            heard,
            slow,
        })
    }

    /// How a tunnel ended that was not taken because the server had stopped.
    fn stopped_as(&self) -> EndReason {
        match self.registry.stop_reason() {
            Some(StopReason::Drained) => EndReason::Drained,
            _ => EndReason::Closed,
        }
    }

    /// Takes note of how a tunnel ended, and that its gateway drains.
    pub(crate) fn learn(&self, live: &Live, reason: Option<&EndReason>) {
        let place = &self.places[live.place];
        match reason {
            None | Some(EndReason::PeerDrained | EndReason::PeerClosed) => {
                place.set_standing(Standing::Away);
            }
            Some(_) => {}
        }
        if let Some(reason) = reason {
            place.learn(live.slow, reason, live.heard.silence());
        }
    }

    /// Drains all tunnels, for good.
    pub(crate) fn drain(&self, within: Duration) {
        let deadline = deadline(within);
        self.registry
            .stop(StopReason::Drained, |tunnel| tunnel.drain(deadline));
    }

    /// Closes all tunnels, for good.
    pub(crate) fn close(&self, reason: StopReason) {
        self.registry.stop(reason, Tunnel::close);
    }

    /// Shows all links as stopped, also those that were dropped.
    pub(crate) fn all_stopped(&self) {
        let Some(reason) = self.registry.stop_reason() else {
            return;
        };
        self.board.send_modify(|links| {
            for link in links {
                link.state = LinkState::Stopped(reason);
            }
        });
    }
}

/// By the clock that the tunnels' timers go by; none if that is beyond all times.
pub(crate) fn deadline(within: Duration) -> Option<std::time::Instant> {
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
