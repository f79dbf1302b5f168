//! What the parts of a gateway's membership in a fleet share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tonic::{Request, Status};
use tunnel_server::{AcceptedTunnel, TunnelServiceHandler};
use tunnel_tonic::pool::explained;
use tunnel_tonic::{Direction, TunnelChannel, TunnelId};

use crate::cache::{Cache, HopState, Incarnation};
use crate::directory::{Directory, LeaseId, Write};
use crate::hops::Hops;
use crate::moments::{MOMENT, Moments};
use crate::peer::api::FindRequest;
use crate::peer::api::peer_client::PeerClient;
use crate::record::{Denial, GatewayRecord, Paths};
use crate::settings::Settings;
use crate::waiters::Waiters;

/// How long another gateway may take to say whether a device is there.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it is believed that nobody has a device, while the directory does not answer.
const NEGATIVE_FOR: Duration = Duration::from_secs(1);

/// How many devices are asked for at once. Calls to more fail at once.
const MAX_ASKED: usize = 1024;

/// One membership of the gateway in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: LeaseId,
}

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hops: Counter,
    pub(crate) hops_served: Counter,
    pub(crate) absent: Counter,
    pub(crate) asked: Counter,
    pub(crate) published: Counter,
    pub(crate) publish_failures: Counter,
    pub(crate) joined: Counter,
    pub(crate) swept: Counter,
    pub(crate) flaps: Counter,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) paths: Paths,
    pub(crate) directory: Arc<dyn Directory>,
    /// Whether there is no directory, and no other gateway.
    pub(crate) is_alone: bool,
    pub(crate) hops: Hops,
    pub(crate) waiters: Waiters,
    /// Changes when the way to a device may have changed.
    pub(crate) changes: watch::Sender<()>,
    pub(crate) counters: Counters,
    /// The membership; `None` while there is none.
    pub(crate) membership: watch::Sender<Option<Membership>>,
    /// The keys whose records may not be true.
    pub(crate) dirty: Mutex<HashSet<String>>,
    pub(crate) is_dirty: Notify,
    /// Denials, and ends of them, that the directory did not take yet.
    unwritten: Mutex<HashMap<String, Write>>,
    /// Whether the gateway is about to stop.
    pub(crate) draining: watch::Sender<bool>,
    /// Whether the gateway is a member no more, and does not join again.
    pub(crate) left: AtomicBool,
    cache: Mutex<Cache>,
    handler: OnceLock<TunnelServiceHandler>,
    /// The keys that other gateways are asked for, or were a moment ago.
    asked: Mutex<HashMap<String, Asked>>,
    /// Keys that were lost a moment ago.
    lost_keys: Moments,
    /// Keys whose calls are woken soon.
    woken_keys: Moments,
    /// Incarnations whose hops were lost a moment ago.
    lost_hops: Moments,
    started: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Now,
    InVain,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        directory: Arc<dyn Directory>,
        is_alone: bool,
        hops: Hops,
    ) -> Arc<Self> {
        let paths = Paths::new(&settings.fleet);
        Arc::new(Self {
            cache: Mutex::new(Cache::new(paths.clone())),
            settings,
            paths,
            directory,
            is_alone,
            hops,
            waiters: Waiters::default(),
            changes: watch::Sender::new(()),
            counters: Counters::default(),
            membership: watch::Sender::new(None),
            dirty: Mutex::default(),
            is_dirty: Notify::new(),
            unwritten: Mutex::default(),
            draining: watch::Sender::new(false),
            left: AtomicBool::new(false),
            handler: OnceLock::new(),
            asked: Mutex::default(),
            lost_keys: Moments::default(),
            woken_keys: Moments::default(),
            lost_hops: Moments::default(),
            started: Instant::now(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to a device may have changed.
    pub(crate) fn wake(&self, key: &str) {
        self.waiters.wake(key);
        self.changes.send_replace(());
    }

    /// The way to any device may have changed.
    pub(crate) fn wake_all(&self) {
        self.waiters.wake_all();
        self.changes.send_replace(());
    }

    /// Whether there is a directory that does not answer.
    pub(crate) fn is_stale(&self) -> bool {
        !self.is_alone && self.cache().is_stale()
    }

    pub(crate) fn handler(&self) -> Option<&TunnelServiceHandler> {
        self.handler.get()
    }

    /// Sets the handler, once.
    pub(crate) fn set_handler(&self, handler: TunnelServiceHandler) -> bool {
        self.handler.set(handler).is_ok()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        let membership = self.membership.borrow();
        membership.as_ref().map(|own| own.incarnation.clone())
    }

    /// What the directory has of this gateway.
    pub(crate) fn record(&self) -> GatewayRecord {
        GatewayRecord {
            draining: self.is_draining(),
            ..self.settings.record.clone()
        }
    }

    /// The tunnels of a key that take calls here.
    pub(crate) fn own_tunnels(&self, key: &str) -> Vec<AcceptedTunnel> {
        let Some(handler) = self.handler() else {
            return Vec::new();
        };
        let tunnels = handler.tunnels_of_key(key).into_iter();
        tunnels
            .filter(|tunnel| tunnel.direction() == Direction::Reverse && tunnel.is_ready())
            .collect()
    }

    /// Notes that the record of a key may not be true.
    pub(crate) fn touch(&self, key: &str) {
        if self.is_alone {
            return;
        }
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.insert(key.to_owned());
        drop(dirty);
        self.is_dirty.notify_one();
    }

    /// Notes all keys that are here, or should not be.
    pub(crate) fn touch_all(&self) {
        let incarnation = self.incarnation();
        let mut keys: HashSet<String> = HashSet::new();
        if let Some(handler) = self.handler() {
            let tunnels = handler.tunnels().into_iter();
            keys.extend(tunnels.filter_map(|tunnel| Some(tunnel.key()?.as_str().to_owned())));
        }
        // What the directory has right already needs no write.
        let cache = self.cache();
        let own = |key: &str| {
            let mut records = cache.records(key).iter();
            records
                .find(|route| &*route.gateway == self.name())
                .cloned()
        };
        let wrong = |key: &String| {
            let right =
                own(key).is_some_and(|route| Some(&route.incarnation) == incarnation.as_ref());
            !right
        };
        let mut dirty: HashSet<String> = keys.iter().filter(|key| wrong(key)).cloned().collect();
        for (key, routes) in cache.devices() {
            let own = routes.iter().any(|route| &*route.gateway == self.name());
            if own && !keys.contains(key) {
                dirty.insert(key.clone());
            }
        }
        drop(cache);
        let mut all = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(dirty);
        drop(all);
        self.is_dirty.notify_one();
    }

    /// The way to a gateway of the fleet.
    pub(crate) fn hop_state(&self, incarnation: &Incarnation) -> HopState {
        self.hops.state(incarnation)
    }

    fn routes(&self, key: &str) -> Vec<Incarnation> {
        let zone = self.settings.record.zone.as_deref();
        let hop = |incarnation: &Incarnation| self.hops.state(incarnation);
        self.cache().routes(key, self.name(), zone, hop)
    }

    /// A tunnel to another gateway that has the device.
    pub(crate) fn pick_hop(
        self: &Arc<Self>,
        key: &str,
        tried: &HashSet<TunnelId>,
    ) -> Option<TunnelChannel> {
        if self.is_alone {
            return None;
        }
        let routes = self.routes(key);
        let mut hops = routes.iter();
        let hop = hops.find_map(|incarnation| self.hops.pick(incarnation, tried));
        if hop.is_none() && routes.is_empty() && self.cache().is_stale() {
            self.ask(key);
        }
        hop
    }

    /// The time, for [`is_looking_for`](Self::is_looking_for).
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that a device is not here any more, or not where it was thought to be.
    pub(crate) fn lost(&self, key: &str) {
        if !self.is_alone {
            self.lost_keys.note(key);
        }
    }

    /// Wakes the calls for a key after a moment. They wait no longer.
    fn wake_after_a_moment(self: &Arc<Self>, key: &str) {
        if !self.woken_keys.note(key) {
            return;
        }
        let (shared, key) = (self.clone(), key.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(MOMENT).await;
            shared.waiters.wake(&key);
        });
    }

    /// Whether a way to the device may be found in a moment, for a call that began at this time: a gateway that has it is
    /// being dialled, or others are being asked, or the device or the way to it was lost a moment ago.
    pub(crate) fn is_looking_for(self: &Arc<Self>, key: &str, began: u64) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.get(key) == Some(&Asked::Now) {
            return true;
        }
        drop(asked);
        let routes = self.routes(key);
        if routes
            .iter()
            .any(|incarnation| self.hops.is_new(incarnation))
        {
            return true;
        }
        if self.is_alone || u128::from(self.now() - began) >= MOMENT.as_millis() {
            return false;
        }
        // A tunnel that is being drained: its device has another one, or opens one.
        if self.has_tunnel(key) {
            self.lost(key);
        }
        let hop_was_lost = |incarnation: &Incarnation| self.lost_hops.has(incarnation);
        let may_return = self.lost_keys.has(key) || routes.iter().any(hop_was_lost);
        if may_return {
            self.wake_after_a_moment(key);
        }
        may_return
    }

    /// Whether the last tunnel of a key here has closed a moment ago.
    pub(crate) fn was_just_lost(&self, key: &str) -> bool {
        self.lost_keys.has(key)
    }

    /// Whether a tunnel of the key is open here, even if it takes no calls.
    pub(crate) fn has_tunnel(&self, key: &str) -> bool {
        let tunnels = self.handler().map(|handler| handler.tunnels_of_key(key));
        let mut tunnels = tunnels.into_iter().flatten();
        tunnels.any(|tunnel| tunnel.direction() == Direction::Reverse)
    }

    /// Asks the other gateways for a device, unless they are being asked or have just been.
    fn ask(self: &Arc<Self>, key: &str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.contains_key(key) || asked.len() >= MAX_ASKED {
            return;
        }
        let peers = self.hops.reachable();
        if peers.is_empty() {
            return;
        }
        asked.insert(key.to_owned(), Asked::Now);
        drop(asked);
        self.counters.asked.add();
        let (shared, key) = (self.clone(), key.to_owned());
        tokio::spawn(async move {
            let answers = peers.into_iter().map(|(incarnation, gateway, tunnel)| {
                let mut request = Request::new(FindRequest { key: key.clone() });
                request.set_timeout(ASK_TIMEOUT);
                async move {
                    let found = PeerClient::new(tunnel).find(request).await;
                    let found = found.is_ok_and(|found| found.into_inner().tunnels > 0);
                    found.then_some((gateway, incarnation))
                }
            });
            let mut answers: FuturesUnordered<_> = answers.collect();
            let mut found = false;
            while let Some(answer) = answers.next().await {
                if let Some((gateway, incarnation)) = answer {
                    found = true;
                    shared.cache().learn(&key, &gateway, &incarnation);
                    break;
                }
            }
            let set = |asked: Option<Asked>| {
                let mut all = shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
                match asked {
                    Some(asked) => _ = all.insert(key.clone(), asked),
                    None => _ = all.remove(&key),
                }
                drop(all);
                shared.wake(&key);
            };
            if !found {
                set(Some(Asked::InVain));
                tokio::time::sleep(NEGATIVE_FOR).await;
            }
            set(None);
        });
    }

    /// Notes that a gateway said that it does not have a device.
    pub(crate) fn mark_absent(&self, key: &str, tunnel: TunnelId) {
        self.counters.absent.add();
        if let Some(incarnation) = self.hops.gateway_of(tunnel) {
            self.cache().mark_absent(key, &incarnation);
            self.lost(key);
        }
    }

    /// Looks after a hop that has come up or gone down.
    pub(crate) fn hop_changed(&self, incarnation: &Incarnation, up: bool) {
        if !up {
            let mut cache = self.cache();
            let gone = cache.gateway(incarnation).is_none_or(|state| state.lapsed);
            if gone {
                cache.forget(incarnation);
            }
            drop(cache);
            if gone {
                self.hops.give_up(incarnation);
            } else {
                self.lost_hops.note(incarnation);
            }
        }
        self.wake_all();
    }

    /// Adds to the failure of a call without a tunnel that the directory is away.
    pub(crate) fn explain(&self, status: Status) -> Status {
        match self.cache().lost().filter(|_| !self.is_alone) {
            Some(lost) => {
                let message = format!("{}; other gateways may have it: {lost}", status.message());
                explained(message, status)
            }
            None => status,
        }
    }

    /// Notes a denial, or that it is over, that another gateway has told of.
    pub(crate) fn told(&self, key: &str, denial: Option<Denial>) {
        let is_denied = denial.is_some();
        let is_news = self.cache().told(key, denial);
        match is_denied {
            _ if !is_news => {}
            true => self.enforce_denial(key),
            false => self.allowed(key),
        }
    }

    /// Tells the embedder that a key may connect again.
    pub(crate) fn allowed(&self, key: &str) {
        if let Some(hook) = &self.settings.on_denial {
            (hook.0)(key, None);
        }
    }

    /// Ends the tunnels of a key if it is denied.
    pub(crate) fn enforce_denial(&self, key: &str) {
        let denial = self.cache().denial(key, SystemTime::now()).cloned();
        if let (Some(denial), Some(hook)) = (&denial, &self.settings.on_denial) {
            (hook.0)(key, Some(denial));
        }
        if let (Some(status), Some(handler)) = (self.denied(key), self.handler()) {
            handler.close_key_with(key, status);
        }
    }

    /// Denials, and ends of them, that the directory did not take yet.
    pub(crate) fn unwritten(&self) -> MutexGuard<'_, HashMap<String, Write>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal of a key that may not connect.
    pub(crate) fn denied(&self, key: &str) -> Option<Status> {
        let cache = self.cache();
        let denial = cache.denial(key, SystemTime::now())?;
        Some(Status::permission_denied(match denial.reason.as_str() {
            "" => format!("key {key:?} is denied"),
            reason => format!("key {key:?} is denied: {reason}"),
        }))
    }
}
