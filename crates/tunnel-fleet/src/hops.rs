//! The tunnels to the other gateways.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tonic::metadata::MetadataMap;
use tunnel_client::{Backoff, Config, ForwardChannel, Gateway, LinkStatus};
use tunnel_tonic::pool::Tunnels;
use tunnel_tonic::{TunnelChannel, TunnelId};

use crate::cache::{GatewayState, HopState, Incarnation};

/// The metadata key by which the tunnel of a hop says which incarnation it is for, so that nobody answers who has
/// inherited an address.
pub(crate) const HOP_TO: &str = "tunnel-hop-to";

/// How often each end of a hop says that it lives.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// The default silence after which the routes over a hop are tried last.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// The silence after which a hop is given up.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// How many calls a hop carries at once.
const MAX_CALLS: usize = 16_384;

/// Makes the gateway that is dialled for an address.
pub(crate) type Connect = dyn Fn(&str) -> Result<Gateway, String> + Send + Sync;

/// The settings of both ends of a hop.
pub(crate) fn config() -> Config {
    let config = Config::builder()
        .heartbeat(Some(HEARTBEAT))
        .silence_timeout(LOST_AFTER)
        .max_concurrent_streams(MAX_CALLS)
        // The calls of many devices share the tunnel. Those that are not read are ended when its memory is full.
        .overcommit(true)
        .build();
    config.unwrap_or_default()
}

/// The tunnels to the other gateways.
pub(crate) struct Hops {
    connect: Box<Connect>,
    per_gateway: usize,
    suspect_after: Duration,
    hops: Mutex<HashMap<Incarnation, Hop>>,
}

struct Hop {
    gateway: Arc<str>,
    address: String,
    channel: ForwardChannel,
    watch: AbortHandle,
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Hops {
    pub(crate) fn new(connect: Box<Connect>, per_gateway: usize, suspect_after: Duration) -> Self {
        Self {
            connect,
            per_gateway,
            suspect_after,
            hops: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Incarnation, Hop>> {
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a tunnel up to a gateway from now on, if it has an address. `changed` hears whether there is one, after
    /// each change.
    pub(crate) fn keep_up(
        &self,
        incarnation: &Incarnation,
        state: &GatewayState,
        changed: impl Fn(bool) + Send + 'static,
    ) {
        let Some(address) = &state.record.hop else {
            return;
        };
        let mut hops = self.lock();
        if hops
            .get(incarnation)
            .is_some_and(|hop| hop.address == *address)
        {
            return;
        }
        let gateway = match (self.connect)(address) {
            Ok(gateway) => gateway.name(&*state.name),
            Err(error) => {
                tracing::warn!(
                    gateway = &*state.name,
                    address,
                    error,
                    "no hop to a gateway"
                );
                return;
            }
        };
        let mut metadata = MetadataMap::new();
        if let Ok(incarnation) = incarnation.parse() {
            metadata.insert(HOP_TO, incarnation);
        }
        let channel = ForwardChannel::builder(gateway)
            .metadata(metadata)
            .config(config())
            .tunnels_per_gateway(self.per_gateway)
            .open_timeout(LOST_AFTER)
            .backoff(
                Backoff::default()
                    .initial(Duration::from_millis(200))
                    .cap(Duration::from_secs(2)),
            )
            .connect_lazy();
        let mut links = channel.handle().watch();
        let watch = tokio::spawn(async move {
            while links.changed().await.is_ok() {
                let connected = links
                    .borrow_and_update()
                    .iter()
                    .any(LinkStatus::is_connected);
                changed(connected);
            }
        });
        let hop = Hop {
            gateway: state.name.clone(),
            address: address.clone(),
            channel,
            watch: watch.abort_handle(),
        };
        let old = hops.insert(incarnation.clone(), hop);
        drop(hops);
        drop(old);
    }

    /// Gives up the tunnels to a gateway. Calls in flight go on.
    pub(crate) fn give_up(&self, incarnation: &str) {
        let hop = self.lock().remove(incarnation);
        drop(hop);
    }

    /// Gives up all tunnels.
    pub(crate) fn clear(&self) {
        let hops = std::mem::take(&mut *self.lock());
        drop(hops);
    }

    fn channel(&self, incarnation: &str) -> Option<ForwardChannel> {
        self.lock().get(incarnation).map(|hop| hop.channel.clone())
    }

    pub(crate) fn state(&self, incarnation: &str) -> HopState {
        let Some(channel) = self.channel(incarnation) else {
            return HopState::Down;
        };
        let tunnels = channel.tunnels();
        let answers = |tunnel: &TunnelChannel| {
            let silence = tunnel.silent_for();
            silence.is_none_or(|silence| silence < self.suspect_after)
        };
        match tunnels.iter().any(answers) {
            true => HopState::Up,
            false if tunnels.is_empty() => HopState::Down,
            false => HopState::Silent,
        }
    }

    /// Whether the first attempt to reach a gateway is under way.
    pub(crate) fn is_new(&self, incarnation: &str) -> bool {
        let Some(channel) = self.channel(incarnation) else {
            return false;
        };
        let links = channel.handle().links();
        let tried = |link: &LinkStatus| link.is_connected() || link.last_down_reason().is_some();
        !links.iter().any(tried)
    }

    /// A tunnel to a gateway for a call that has tried some already.
    pub(crate) fn pick(
        &self,
        incarnation: &str,
        tried: &HashSet<TunnelId>,
    ) -> Option<TunnelChannel> {
        self.channel(incarnation)?.pick(tried)
    }

    /// The gateway that a tunnel leads to.
    pub(crate) fn gateway_of(&self, tunnel: TunnelId) -> Option<Incarnation> {
        let leads = |hop: &Hop| {
            let mut tunnels = hop.channel.tunnels().into_iter();
            tunnels.any(|open| open.id() == tunnel)
        };
        let hops = self.lock();
        let mut hops = hops.iter();
        let found = hops.find(|(_, hop)| leads(hop));
        found.map(|(incarnation, _)| incarnation.clone())
    }

    /// The gateways that can be reached: incarnation, name, and a tunnel.
    pub(crate) fn reachable(&self) -> Vec<(Incarnation, Arc<str>, TunnelChannel)> {
        let hops = self.lock();
        let reachable = hops.iter().filter_map(|(incarnation, hop)| {
            let tunnel = hop.channel.pick(&HashSet::new())?;
            Some((incarnation.clone(), hop.gateway.clone(), tunnel))
        });
        reachable.collect()
    }
}

impl fmt::Debug for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hops")
            .field("to", &self.lock().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
