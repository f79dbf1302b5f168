//! The tunnels that are open on a handler.
//!
//! Invariants: a tunnel is listed from before its first frame until its outer stream has ended,
//! or its runtime. A reverse tunnel is in its pools exactly while it takes calls. No hook, no
//! callback and no waker runs under a lock, and nothing of a user's is dropped there; where locks
//! nest, the list's comes first, then a pool's, then a tunnel's.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select};
use tokio::sync::{broadcast, watch};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tunnel_core::{EndReason, NOT_PROCESSED_KEY};
use tunnel_tonic::{AffinityKey, Direction, MemoryBudget, TunnelId, TunnelInfo};

use crate::origin::{Origin, Origins};
use crate::policy::{Policy, WhenKeyIsFull};
use crate::pool::Pool;
use crate::{Opening, TunnelEvent, TunnelHandle};

/// How many events a subscriber may be behind.
const EVENTS: usize = 1024;

/// The open tunnels of one handler.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) policy: Policy,
    /// What the tunnels may hold together.
    pub(crate) memory: MemoryBudget,
    /// All reverse tunnels that take calls.
    pub(crate) all: Arc<Pool>,
    pub(crate) events: broadcast::Sender<TunnelEvent>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
}

/// How far a handler is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// New tunnels are taken.
    Open,
    /// New tunnels are refused, the others go on.
    Refusing,
    /// The tunnels are being drained.
    Draining,
}

#[derive(Debug, Default)]
struct State {
    tunnels: HashMap<TunnelId, Listed>,
    /// How many of them were closed for newer ones. They are about to go, and count no more.
    displaced: usize,
    /// The tunnels of each key that count against its limit, oldest first.
    keys: HashMap<AffinityKey, Vec<TunnelId>>,
    /// Where the tunnels come from.
    origins: Origins,
    /// The pools of keys, as long as a channel or a tunnel needs one.
    pools: HashMap<AffinityKey, Weak<Pool>>,
}

#[derive(Debug)]
struct Listed {
    handle: TunnelHandle,
    origin: Origin,
    /// Whether the world was told that it has opened.
    announced: bool,
    /// Whether it was closed for a newer one.
    displaced: bool,
    /// The pool of its key, while it is in its pools.
    pooled: Option<Pooled>,
}

/// A tunnel's membership in its pools.
#[derive(Debug)]
struct Pooled {
    of_key: Option<Arc<Pool>>,
}

/// What follows from a look at a tunnel, to be done without the lock.
#[derive(Default)]
struct Change {
    /// The pools it has joined: those who wait there are to look again.
    joined: Vec<Arc<Pool>>,
    /// The pool of its key that it has left. Its end takes the lock.
    left: Option<Arc<Pool>>,
    /// The tunnel, if the world is to be told that it has opened.
    announce: Option<TunnelHandle>,
}

/// A tunnel's place in the list, which it loses when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    id: TunnelId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.remove(self.id);
    }
}

impl Registry {
    pub(crate) fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBudget::new(policy.memory_budget),
            policy,
            all: Pool::of_all(),
            events: broadcast::Sender::new(EVENTS),
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Open),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the hooks about a tunnel, for no longer than tunnels are taken at all: an opening that
    /// they never decide on would keep its server from shutting down.
    pub(crate) async fn consider(&self, opening: &mut Opening) -> Result<(), Status> {
        let refusing = pin!(self.refuses_openings());
        let asked = AssertUnwindSafe(self.policy.consider(opening)).catch_unwind();
        match select(refusing, pin!(asked)).await {
            Either::Left(_) => Err(draining()),
            Either::Right((Ok(admitted), _)) => admitted,
            Either::Right((Err(_), _)) => {
                tracing::error!("the hooks of a new tunnel have panicked");
                Err(Status::internal("the server failed to admit the tunnel"))
            }
        }
    }

    /// Lists a tunnel, if the limits allow it.
    pub(crate) fn insert(
        self: &Arc<Self>,
        handle: &TunnelHandle,
        origin: Origin,
    ) -> Result<Entry, Status> {
        let id = handle.id();
        let displaced = {
            let mut state = self.lock();
            if *self.phase.borrow() != Phase::Open {
                return Err(draining());
            }
            state.list(&self.policy, handle, origin)?
        };
        let entry = Entry {
            registry: self.clone(),
            id,
        };
        let registry = Arc::downgrade(self);
        handle.tunnel().on_change(move || {
            if let Some(registry) = registry.upgrade() {
                registry.refresh(id);
            }
        });
        if let Some(displaced) = displaced {
            tracing::warn!(
                tunnel = ?displaced.info(),
                "closed for a newer tunnel of its key"
            );
            displaced.close(Status::aborted(
                "replaced by a newer tunnel of the same key",
            ));
        }
        Ok(entry)
    }

    /// Looks whether a tunnel takes calls, and puts it into its pools or takes it out.
    fn refresh(self: &Arc<Self>, id: TunnelId) {
        let change = self.look(&mut self.lock(), id);
        change.joined.iter().for_each(|pool| pool.tunnels.wake());
        drop(change.left);
        if let Some(handle) = change.announce {
            self.opened(&handle);
        }
    }

    fn look(self: &Arc<Self>, state: &mut State, id: TunnelId) -> Change {
        let mut change = Change::default();
        let Some(listed) = state.tunnels.get_mut(&id) else {
            return change;
        };
        let takes_calls = listed.handle.takes_calls();
        let pooled = listed.pooled.is_some();
        if takes_calls && !listed.announced {
            listed.announced = true;
            change.announce = Some(listed.handle.clone());
        }
        if takes_calls && !pooled && listed.handle.direction() == Direction::Reverse {
            let handle = listed.handle.clone();
            change.joined = self.join(state, &handle);
        } else if !takes_calls && pooled {
            change.left = self.leave(state, id);
        }
        change
    }

    /// Puts a tunnel into its pools. Returns them: those who wait there are to be woken without
    /// the lock.
    fn join(self: &Arc<Self>, state: &mut State, handle: &TunnelHandle) -> Vec<Arc<Pool>> {
        let of_key = handle.key().map(|key| self.pool_of(state, key));
        if let Some(listed) = state.tunnels.get_mut(&handle.id()) {
            let of_key = of_key.clone();
            listed.pooled = Some(Pooled { of_key });
        }
        // That of its key first, from which it is the last to leave: whoever sees a tunnel among
        // all finds it by its key.
        let pools: Vec<_> = of_key.into_iter().chain([self.all.clone()]).collect();
        if let Some(channel) = handle.channel() {
            pools.iter().for_each(|pool| pool.tunnels.join(&channel));
        }
        pools
    }

    /// Takes a tunnel out of its pools. Returns the pool of its key, to be dropped without the
    /// lock, which the pool's own end takes.
    #[must_use = "to be dropped without the lock"]
    fn leave(&self, state: &mut State, id: TunnelId) -> Option<Arc<Pool>> {
        let pooled = state.tunnels.get_mut(&id)?.pooled.take()?;
        self.all.tunnels.leave(id);
        pooled.of_key.inspect(|pool| pool.tunnels.leave(id))
    }

    fn remove(&self, id: TunnelId) {
        let (removed, left) = {
            let mut state = self.lock();
            let left = self.leave(&mut state, id);
            (state.unlist(id), left)
        };
        drop(left);
        if let Some(listed) = removed.filter(|listed| listed.announced) {
            let reason = listed.handle.end_reason().unwrap_or(EndReason::PeerClosed);
            self.closed(listed.handle.info(), &reason);
        }
    }

    /// Tells of a tunnel that has opened. To be called without any lock.
    fn opened(&self, tunnel: &TunnelHandle) {
        self.policy.opened(tunnel);
        // Fails when nobody listens.
        let _ = self.events.send(TunnelEvent::Opened(tunnel.clone()));
    }

    /// Tells of a tunnel that has gone. To be called without any lock.
    fn closed(&self, info: &TunnelInfo, reason: &EndReason) {
        self.policy.closed(info, reason);
        let closed = TunnelEvent::Closed {
            info: info.clone(),
            reason: reason.clone(),
        };
        // Fails when nobody listens.
        let _ = self.events.send(closed);
    }

    /// The pool of a key, which is made if there is none.
    pub(crate) fn key_pool(self: &Arc<Self>, key: &AffinityKey) -> Arc<Pool> {
        self.pool_of(&mut self.lock(), key)
    }

    fn pool_of(self: &Arc<Self>, state: &mut State, key: &AffinityKey) -> Arc<Pool> {
        if let Some(pool) = state.pools.get(key).and_then(Weak::upgrade) {
            return pool;
        }
        let registry = Arc::downgrade(self);
        let on_drop = move |key: &AffinityKey| {
            if let Some(registry) = registry.upgrade() {
                registry.pool_gone(key);
            }
        };
        let pool = Pool::of_key(key.clone(), Box::new(on_drop));
        state.pools.insert(key.clone(), Arc::downgrade(&pool));
        pool
    }

    /// A pool has gone: its key keeps nothing, unless it has a new one already.
    fn pool_gone(&self, key: &AffinityKey) {
        let mut state = self.lock();
        if state.pools.get(key).is_some_and(|p| p.strong_count() == 0) {
            state.pools.remove(key);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// Waits until new tunnels are refused.
    async fn refuses_openings(&self) {
        let mut phase = self.phase.subscribe();
        // Fails only when the sender is gone, which is borrowed here.
        let _ = phase.wait_for(|&phase| phase > Phase::Open).await;
    }

    /// Refuses new tunnels from now on.
    pub(crate) fn refuse_openings(&self) {
        self.enter(Phase::Refusing);
    }

    /// Moves on, never back.
    fn enter(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = next > *phase;
            *phase = next.max(*phase);
            forward
        });
    }

    /// Waits until another reverse tunnel of the same key, or without a key any, takes calls that
    /// was opened later.
    pub(crate) async fn replaced(self: &Arc<Self>, tunnel: &TunnelHandle) {
        let pool = match tunnel.key() {
            Some(key) => self.key_pool(key),
            None => self.all.clone(),
        };
        let mut joined = pool.tunnels.subscribe();
        while !pool.tunnels.tunnels().iter().any(|t| t.id() > tunnel.id()) {
            // Cannot fail: the sender is borrowed here.
            let _ = joined.changed().await;
        }
    }

    /// The tunnels, oldest first.
    pub(crate) fn tunnels(&self) -> Vec<TunnelHandle> {
        let state = self.lock();
        let mut tunnels: Vec<_> = state.tunnels.values().map(|l| l.handle.clone()).collect();
        drop(state);
        tunnels.sort_by_key(|tunnel| tunnel.id());
        tunnels
    }

    pub(crate) fn tunnel(&self, id: TunnelId) -> Option<TunnelHandle> {
        Some(self.lock().tunnels.get(&id)?.handle.clone())
    }

    /// The tunnels of a key, oldest first.
    pub(crate) fn tunnels_of(&self, key: &AffinityKey) -> Vec<TunnelHandle> {
        let state = self.lock();
        let ids = state.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let handle = |id| Some(state.tunnels.get(id)?.handle.clone());
        ids.iter().filter_map(handle).collect()
    }

    /// How many keys, connections and addresses something is kept for.
    pub(crate) fn kept_keys(&self) -> usize {
        let state = self.lock();
        state.keys.len() + state.pools.len() + state.origins.kept()
    }

    /// Drains all tunnels and refuses new ones; returns when all have gone, and that was told.
    pub(crate) async fn drain(&self, within: Duration) {
        // First: what is listed later is refused, what was listed before is found below.
        self.enter(Phase::Draining);
        let tunnels = self.tunnels();
        for tunnel in &tunnels {
            tunnel.begin_drain(within);
        }
        // Calls that wait for a tunnel wait in vain.
        for pool in self.pools() {
            pool.tunnels.wake();
        }
        for tunnel in tunnels {
            tunnel.gone().await;
        }
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        let state = self.lock();
        let of_keys = state.pools.values().filter_map(Weak::upgrade);
        of_keys.chain([self.all.clone()]).collect()
    }
}

/// The refusal of a tunnel by a server that is about to stop: it was not opened, and may be at
/// once, elsewhere.
fn draining() -> Status {
    let pushback = fastrand::u64(50..=150).into();
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", pushback);
    metadata.insert(NOT_PROCESSED_KEY, MetadataValue::from_static("1"));
    let message = "the server is draining its tunnels";
    Status::with_metadata(Code::Unavailable, message, metadata)
}

impl State {
    /// Lists a tunnel if the limits allow it. Returns the tunnel that has to go for it.
    fn list(
        &mut self,
        policy: &Policy,
        handle: &TunnelHandle,
        origin: Origin,
    ) -> Result<Option<TunnelHandle>, Status> {
        let origin = match handle.key() {
            Some(_) => origin.without_address(),
            None => origin,
        };
        self.origins.check(policy, &origin)?;
        let displaced = match handle.key() {
            Some(key) if self.count_of(key) >= policy.max_per_key => {
                Some(self.displace(policy, key)?)
            }
            _ => None,
        };
        let open = self.tunnels.len() - self.displaced;
        if open >= policy.max_tunnels {
            let message = format!("the server has {open} tunnels open, as many as it takes");
            return Err(Status::resource_exhausted(message));
        }
        if let Some(key) = handle.key() {
            self.keys.entry(key.clone()).or_default().push(handle.id());
        }
        self.origins.add(&origin);
        let listed = Listed {
            handle: handle.clone(),
            origin,
            announced: false,
            displaced: false,
            pooled: None,
        };
        self.tunnels.insert(handle.id(), listed);
        Ok(displaced)
    }

    fn count_of(&self, key: &AffinityKey) -> usize {
        self.keys.get(key).map_or(0, Vec::len)
    }

    /// Has the oldest tunnel of a key that is full give way, if that was chosen.
    fn displace(&mut self, policy: &Policy, key: &AffinityKey) -> Result<TunnelHandle, Status> {
        let oldest = match policy.when_key_is_full {
            WhenKeyIsFull::CloseOldest => self.keys.get(key).and_then(|ids| ids.first().copied()),
            WhenKeyIsFull::Refuse => None,
        };
        let Some(listed) = oldest.and_then(|id| self.tunnels.get_mut(&id)) else {
            let (key, open) = (key.as_str(), self.count_of(key));
            let message = format!("key {key:?} has {open} tunnels open, as many as it may");
            return Err(Status::resource_exhausted(message));
        };
        listed.displaced = true;
        self.displaced += 1;
        let handle = listed.handle.clone();
        self.give_place(key, handle.id());
        Ok(handle)
    }

    fn unlist(&mut self, id: TunnelId) -> Option<Listed> {
        let listed = self.tunnels.remove(&id)?;
        self.displaced -= usize::from(listed.displaced);
        self.origins.remove(&listed.origin);
        if let Some(key) = listed.handle.key() {
            self.give_place(key, id);
        }
        Some(listed)
    }

    fn give_place(&mut self, key: &AffinityKey, id: TunnelId) {
        if let Some(ids) = self.keys.get_mut(key) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}
