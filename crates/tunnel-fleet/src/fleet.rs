//! A gateway's place in a fleet.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tonic::{Request, Status};
use tower_layer::Stack;
use tunnel_server::{
    AffinityKey, KeyFrom, KeyProxy, Opening, TunnelServiceHandler, TunnelServiceHandlerBuilder,
    TunnelServiceServer,
};
use tunnel_tonic::{Direction, TunnelChannel};

use crate::cache::{GatewayState, Route};
use crate::channel::FleetChannel;
use crate::hop::{DevicesFirst, HopService};
use crate::hops;
use crate::member::{self, JoinError};
use crate::peer::PeerService;
use crate::peer::api;
use crate::peer::api::peer_client::PeerClient;
use crate::peer::api::peer_server::PeerServer;
use crate::settings::Exclusive;
use crate::shared::Shared;
use crate::{exclusive, follow, publish};

/// How long another gateway may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How long leaving waits for the directory.
const LEAVE: Duration = Duration::from_secs(2);

/// A gateway's place in a fleet. Clones are the same place; when the last one is dropped, the gateway leaves without
/// a word, as if it had been killed.
///
/// ```
/// use tunnel_fleet::Fleet;
/// use tunnel_fleet::directory::MemoryDirectory;
/// use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = MemoryDirectory::new(); // or etcd
/// let fleet = Fleet::builder("edge-1")
///     .directory(directory)
///     .advertise("http://10.0.0.7:7001")
///     .build();
/// let handler = TunnelServiceHandler::builder()
///     .affinity_key(|opening: &Opening| opening.metadata_str("device-id").map(AffinityKey::from));
/// let handler = fleet.watch_tunnels(handler).build();
/// fleet.join(&handler).await?;
///
/// // Two servers: for devices and clients, and for the other gateways, with mutual TLS.
/// let (tunnels, hops) = (handler.service(), fleet.hop_service());
///
/// // DeviceClient::new(fleet.channel("device-17")): that device, at whichever gateway.
/// let device = fleet.channel("device-17");
/// assert!(!device.is_ready());
/// # let _ = (tunnels, hops);
/// # fleet.leave().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fleet {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // The hops hold tasks that hold the shared state.
        self.shared.hops.clear();
    }
}

/// Counters of a gateway in a fleet, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetStats {
    /// Calls that were sent to another gateway.
    pub hops: u64,
    /// Calls of other gateways that were served here.
    pub hops_served: u64,
    /// Calls that found a stale route: the other gateway did not have the device.
    pub absent: u64,
    /// How often the other gateways were asked for a device, because the directory did not answer.
    pub asked: u64,
    /// Transactions that were written.
    pub published: u64,
    /// Transactions that were not, and were made again.
    pub publish_failures: u64,
    /// How often the gateway joined. More than one: it was cut off from the directory.
    pub joined: u64,
    /// Transactions that removed what other gateways had left behind.
    pub swept: u64,
    /// Devices that were refused because two of them use one exclusive key.
    pub flaps: u64,
    /// Keys whose records are not written yet.
    pub unpublished: usize,
    /// Keys that are known.
    pub keys: usize,
    /// Whether the directory does not answer.
    pub stale: bool,
}

impl Fleet {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            owner: Arc::new(Owner {
                shared,
                tasks: Mutex::default(),
            }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// Adds the hooks of the fleet to the handler of the gateway's tunnels: it publishes keys, refuses denied
    /// ones, and decides about exclusive ones.
    pub fn watch_tunnels<L>(
        &self,
        handler: TunnelServiceHandlerBuilder<L>,
    ) -> TunnelServiceHandlerBuilder<L> {
        let (admits, opens, closes) = (
            self.shared().clone(),
            self.shared().clone(),
            self.shared().clone(),
        );
        handler
            .admit(move |opening: Opening| {
                let shared = admits.clone();
                async move { admit(&shared, &opening).await }
            })
            .on_open(move |tunnel| {
                let reverse = tunnel.direction() == Direction::Reverse;
                if let Some(key) = tunnel.key().filter(|_| reverse) {
                    opens.touch(key.as_str());
                    opens.wake(key.as_str());
                    exclusive::owner_changed(&opens, key.as_str());
                }
            })
            .on_close(move |info, _, _| {
                if let Some(key) = info
                    .key()
                    .filter(|_| info.direction() == Direction::Reverse)
                {
                    closes.touch(key.as_str());
                    if closes.own_tunnels(key.as_str()).is_empty() {
                        closes.lost(key.as_str());
                    }
                    closes.wake(key.as_str());
                    exclusive::release(&closes, key.as_str());
                }
            })
    }

    /// Joins the fleet with the gateway's handler, which was built with [`watch_tunnels`](Self::watch_tunnels). From
    /// then on the gateway renews its lease, publishes its keys, and keeps tunnels up to the others.
    ///
    /// If the directory does not answer, the gateway serves its own devices and joins later: that is no error.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: the name is not legal, or is still taken by a gateway that lives after two times the lease's
    /// time to live.
    pub async fn join(&self, handler: &TunnelServiceHandler) -> Result<(), JoinError> {
        let name = self.shared().name();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(legal) {
            return Err(JoinError::IllegalName(name.to_owned()));
        }
        if !self.shared().set_handler(handler.clone()) {
            return Err(JoinError::Joined);
        }
        if self.shared().is_alone {
            return Ok(());
        }
        let (first, joined) = oneshot::channel();
        {
            let mut tasks = self
                .owner
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(follow::run(self.shared().clone()));
            tasks.spawn(member::run(self.shared().clone(), first));
            tasks.spawn(publish::run(self.shared().clone()));
            tasks.spawn(publish::sweep(self.shared().clone()));
        }
        joined.await.unwrap_or(Ok(()))
    }

    /// A channel to the device with this key, at whichever gateway.
    ///
    /// Before [`join`](Self::join) there is no device.
    pub fn channel(&self, key: impl Into<AffinityKey>) -> FleetChannel {
        let own = match self.shared().handler() {
            Some(handler) => handler.key_as_channel(key),
            None => TunnelServiceHandler::builder().build().key_as_channel(key),
        };
        FleetChannel::new(self.shared().clone(), own)
    }

    /// A service that passes any gRPC call on to the device whose key is in the call, at whichever gateway. What
    /// [`TunnelServiceHandler::proxy`] says holds for it, above all who may reach it.
    pub fn proxy(&self, key: KeyFrom) -> KeyProxy<FleetChannel> {
        let fleet = self.clone();
        KeyProxy::over(key, move |key| fleet.channel(key))
    }

    /// The service for the other gateways, for a listener of its own.
    ///
    /// **Who can open a tunnel there can call all devices that are here.** Give the listener mutual TLS, and let in
    /// certificates of gateways only.
    pub fn hop_service(&self) -> TunnelServiceServer {
        self.hop_handler(TunnelServiceHandler::builder())
            .build()
            .service()
    }

    /// Makes a handler for the other gateways from a builder, which may have services of your own for other gateways. They
    /// reach these through [`peers`](Self::peers). A call for a device never reaches a service of this gateway, even
    /// if it names one.
    ///
    /// Layers of the builder are around all calls. Layers that are added later are around the services alone.
    pub fn hop_handler<L>(
        &self,
        builder: TunnelServiceHandlerBuilder<L>,
    ) -> TunnelServiceHandlerBuilder<Stack<DevicesFirst, L>> {
        let shared = self.shared().clone();
        builder
            .config(hops::config())
            .reverse_tunnels(false)
            .admit(move |opening: Opening| {
                let shared = shared.clone();
                async move { admit_hop(&shared, &opening) }
            })
            .add_service(PeerServer::new(PeerService {
                shared: self.shared().clone(),
            }))
            .fallback(HopService {
                shared: self.shared().clone(),
            })
            .layer(DevicesFirst::new(self.shared().clone()))
    }

    /// Changes when a tunnel opens or closes here, or when the way to a device elsewhere may have changed. It says nothing
    /// else: look again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared().changes.subscribe()
    }

    /// Whether there is no directory, and so no other gateway.
    pub fn is_alone(&self) -> bool {
        self.shared().is_alone
    }

    /// Whether a device may be found: it is here or was a moment ago, the directory has it, or the directory does not
    /// answer.
    pub fn may_have(&self, key: &str) -> bool {
        let shared = self.shared();
        shared.has_tunnel(key)
            || shared.was_just_lost(key)
            || (!shared.is_alone && (shared.is_stale() || !shared.cache().records(key).is_empty()))
    }

    /// Whether this gateway alone is cut off from the directory: it does not answer here, and another gateway says that it
    /// answers there. Who balances over the gateways should leave this one out then.
    pub async fn is_cut_off(&self) -> bool {
        if !self.shared().is_stale() {
            return false;
        }
        let peers = self.peers().into_iter().map(|(_, tunnel)| async move {
            let mut request = Request::new(api::LookRequest {});
            request.set_timeout(ANSWER);
            let look = PeerClient::new(tunnel).look(request).await;
            look.is_ok_and(|look| look.into_inner().directory_answers)
        });
        let answers = futures::future::join_all(peers).await;
        answers.contains(&true)
    }

    /// The name of this gateway.
    pub fn name(&self) -> &str {
        self.shared().name()
    }

    /// The gateways of the fleet that are known, this one among them, by name.
    pub fn gateways(&self) -> Vec<GatewayState> {
        let cache = self.shared().cache();
        let mut gateways: Vec<_> = cache.gateways().map(|(_, state)| state.clone()).collect();
        gateways.sort_by(|a, b| a.name.cmp(&b.name));
        gateways
    }

    /// The other gateways that live and are not about to stop.
    pub fn siblings(&self) -> Vec<GatewayState> {
        let mut gateways = self.gateways();
        gateways.retain(|gateway| self.is_sibling(gateway));
        gateways
    }

    /// The number of [siblings](Self::siblings).
    pub fn count_siblings(&self) -> usize {
        let cache = self.shared().cache();
        let gateways = cache.gateways().map(|(_, state)| state);
        gateways.filter(|gateway| self.is_sibling(gateway)).count()
    }

    fn is_sibling(&self, gateway: &GatewayState) -> bool {
        !gateway.lapsed && !gateway.record.draining && &*gateway.name != self.name()
    }

    /// The other gateways that can be reached now: name, and a tunnel to each.
    pub fn peers(&self) -> Vec<(Arc<str>, TunnelChannel)> {
        let reachable = self.shared().hops.reachable().into_iter();
        reachable.map(|(_, name, tunnel)| (name, tunnel)).collect()
    }

    /// Where a key is: its records at all gateways.
    pub fn routes(&self, key: &str) -> Vec<Route> {
        self.shared().cache().records(key).to_vec()
    }

    /// All keys that are known, with their records, in no order.
    pub fn devices(&self) -> Vec<(String, Vec<Route>)> {
        let cache = self.shared().cache();
        let devices = cache.devices();
        devices
            .map(|(key, routes)| (key.clone(), routes.clone()))
            .collect()
    }

    /// The keys that are here and nowhere else: a restart of this gateway would cost them.
    pub fn only_here(&self) -> Vec<String> {
        let Some(handler) = self.shared().handler() else {
            return Vec::new();
        };
        let cache = self.shared().cache();
        let elsewhere = |key: &str| {
            cache.records(key).iter().any(|route| {
                let gateway = cache.gateway(&route.incarnation);
                let lives = gateway.is_some_and(|state| !state.lapsed && !state.record.draining);
                lives && &*route.gateway != self.name()
            })
        };
        let tunnels = handler
            .tunnels()
            .into_iter()
            .filter(|tunnel| tunnel.direction() == Direction::Reverse && tunnel.is_ready());
        let mut keys: Vec<String> = tunnels
            .filter_map(|tunnel| Some(tunnel.key()?.as_str().to_owned()))
            .filter(|key| !elsewhere(key))
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Tells the others that this gateway is about to stop: its routes are tried last. It goes on serving.
    pub fn begin_drain(&self) {
        self.shared().draining.send_replace(true);
    }

    /// Leaves the fleet, after the tunnels were drained: withdraws the records that are left, and ends the lease.
    pub async fn leave(&self) {
        if self.shared().is_alone {
            return;
        }
        let deadline = tokio::time::Instant::now() + LEAVE;
        let _ = tokio::time::timeout_at(deadline, async {
            while self.stats().unpublished > 0 && self.shared().incarnation().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            member::leave(self.shared()).await;
        })
        .await;
        self.shared().hops.clear();
    }

    /// The counters of this gateway.
    pub fn stats(&self) -> FleetStats {
        let counters = &self.shared().counters;
        let dirty = self
            .shared()
            .dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let unpublished = dirty.len();
        drop(dirty);
        let keys = self.shared().cache().len();
        let stale = self.shared().is_stale();
        FleetStats {
            hops: counters.hops.get(),
            hops_served: counters.hops_served.get(),
            absent: counters.absent.get(),
            asked: counters.asked.get(),
            published: counters.published.get(),
            publish_failures: counters.publish_failures.get(),
            joined: counters.joined.get(),
            swept: counters.swept.get(),
            flaps: counters.flaps.get(),
            unpublished,
            keys,
            stale,
        }
    }
}

async fn admit(shared: &Arc<Shared>, opening: &Opening) -> Result<(), Status> {
    if opening.direction() == Direction::Forward {
        return Ok(());
    }
    let Some(key) = opening.key() else {
        return Ok(());
    };
    if let Some(status) = shared.denied(key.as_str()) {
        return Err(status);
    }
    if shared.settings.refuse_while_stale && shared.is_stale() {
        return Err(Status::unavailable(
            "the directory does not answer, so nobody knows whether this device is denied",
        ));
    }
    match shared.settings.exclusive {
        _ if shared.is_alone => Ok(()),
        Exclusive::No => Ok(()),
        _ => exclusive::admit(shared, opening).await,
    }
}

/// Lets in gateways that look for this incarnation.
fn admit_hop(shared: &Shared, opening: &Opening) -> Result<(), Status> {
    let wanted = opening.metadata_str(hops::HOP_TO).unwrap_or_default();
    match shared.incarnation() {
        Some(own) if *own == *wanted => Ok(()),
        _ => Err(Status::unavailable(format!(
            "this is gateway {:?}, but not the incarnation {wanted:?} of it",
            shared.name()
        ))),
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("fleet", &self.shared().settings.fleet)
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
