//! The tunnels that are open on a handler.
//!
//! Invariants:
//!
//! - A tunnel is listed from before its first frame until its outer stream, or its runtime, has ended.
//! - A reverse tunnel is in its pools exactly while it takes calls.
//! - No hook and no waker runs under a lock, and no value of the user is dropped there.
//! - Locks are taken in this order: the registry's, a pool's, a tunnel's or that of the limit on openings.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select};
use tokio::sync::watch;
use tonic::Status;
use tunnel_core::{EndReason, Notice, Stats};
use tunnel_tonic::{
    AffinityKey, Direction, MemoryBudget, NetworkRole, TunnelError, TunnelId, TunnelInfo,
    TunnelReporter, telemetry,
};

use crate::openings::{Openings, Pending, Place};
use crate::origin::{Origin, Origins};
use crate::policy::{Policy, Refusal, WhenKeyIsFull};
use crate::pool::Pool;
use crate::{AcceptedTunnel, Opening};

/// The open tunnels of one handler.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) policy: Policy,
    /// The memory of all tunnels together.
    pub(crate) memory: MemoryBudget,
    /// All reverse tunnels that take calls.
    pub(crate) all: Arc<Pool>,
    pub(crate) reporter: TunnelReporter,
    pub(crate) openings: Arc<Openings>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    /// Where devices can go when this server drains, as URIs.
    siblings: Mutex<Vec<String>>,
    /// Whether a task renews what the tunnels were told about their return.
    pub(crate) renews: Arc<AtomicBool>,
}

/// The phases of a handler, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// New tunnels are accepted.
    Open,
    /// New tunnels are refused; open ones go on.
    Refusing,
    /// The tunnels are being drained.
    Draining,
}

#[derive(Debug, Default)]
struct State {
    tunnels: HashMap<TunnelId, Listed>,
    /// How many of them were closed for newer ones. They no longer count against limits.
    displaced: usize,
    /// The tunnels of each key that count against its limit, oldest first.
    keys: HashMap<AffinityKey, Vec<TunnelId>>,
    /// The numbers of tunnels by origin.
    origins: Origins,
    /// The pools of keys. A pool lives as long as a channel or a tunnel uses it.
    pools: HashMap<AffinityKey, Weak<Pool>>,
}

#[derive(Debug)]
struct Listed {
    tunnel: AcceptedTunnel,
    origin: Origin,
    /// Until it takes calls: its place under the limit on openings.
    place: Option<Place>,
    /// Whether its opening was reported to the hook and to subscribers.
    announced: bool,
    /// Whether it was closed for a newer one.
    displaced: bool,
    /// Set while it is in its pools.
    pooled: Option<Pooled>,
}

/// A tunnel's membership in its pools.
#[derive(Debug)]
struct Pooled {
    of_key: Option<Arc<Pool>>,
}

/// What to do after a change of a tunnel, without the lock.
#[derive(Default)]
struct Change {
    /// The pools that it has joined. Calls that wait there are to be woken.
    joined: Vec<Arc<Pool>>,
    /// The pool of its key that it has left. Dropping it takes the lock.
    left: Option<Arc<Pool>>,
    /// The tunnel, if its opening is to be reported.
    announce: Option<AcceptedTunnel>,
}

/// A tunnel's entry in the registry. Dropping it removes the tunnel.
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
            openings: Openings::new(policy.max_openings_at_once),
            policy,
            all: Pool::of_all(),
            reporter: TunnelReporter::default(),
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Open),
            siblings: Mutex::default(),
            renews: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the hooks of a new tunnel. They are dropped when new tunnels are refused, because a hook
    /// that never returns would keep its server from shutting down.
    pub(crate) async fn consider(&self, opening: &mut Opening) -> Result<Pending, Refusal> {
        let refusing = pin!(self.refuses_openings());
        let asked = AssertUnwindSafe(async {
            let place = self.openings.place()?;
            self.policy.give_key(opening);
            let pending = self.openings.begin(opening.key(), place);
            self.policy.admit(opening).await?;
            Ok(pending)
        });
        match select(refusing, pin!(asked.catch_unwind())).await {
            Either::Left(_) => Err(Refusal::draining()),
            Either::Right((Ok(admitted), _)) => admitted,
            Either::Right((Err(_), _)) => {
                tracing::error!("a hook panicked while a tunnel was opening");
                let status = Status::internal("the server failed to admit the tunnel");
                Err(Refusal::new("hook_panicked", status))
            }
        }
    }

    /// Lists a tunnel, if the limits allow it.
    pub(crate) fn insert(
        self: &Arc<Self>,
        tunnel: &AcceptedTunnel,
        origin: Origin,
        mut pending: Pending,
    ) -> Result<Entry, Refusal> {
        let id = tunnel.id();
        let place = pending.admitted();
        let displaced = {
            let mut state = self.lock();
            if *self.phase.borrow() != Phase::Open {
                return Err(Refusal::draining());
            }
            state.list(&self.policy, tunnel, origin, place)?
        };
        let entry = Entry {
            registry: self.clone(),
            id,
        };
        pending.check()?;
        let registry = Arc::downgrade(self);
        tunnel.tunnel().on_change(move || {
            if let Some(registry) = registry.upgrade() {
                registry.refresh(id);
            }
        });
        if let Some(displaced) = displaced {
            tracing::warn!(
                parent: displaced.tunnel().span(),
                "tunnel closed for a newer one of the same key"
            );
            displaced.close_with(Status::aborted(
                "replaced by a newer tunnel of the same key",
            ));
        }
        Ok(entry)
    }

    /// Adds a tunnel to its pools or removes it, after its state has changed.
    fn refresh(self: &Arc<Self>, id: TunnelId) {
        let change = self.update(&mut self.lock(), id);
        change.joined.iter().for_each(|pool| pool.tunnels.wake());
        drop(change.left);
        if let Some(tunnel) = change.announce {
            self.opened(&tunnel);
        }
    }

    fn update(self: &Arc<Self>, state: &mut State, id: TunnelId) -> Change {
        let mut change = Change::default();
        let Some(listed) = state.tunnels.get_mut(&id) else {
            return change;
        };
        let is_ready = listed.tunnel.is_ready();
        let pooled = listed.pooled.is_some();
        if is_ready && !listed.announced {
            listed.announced = true;
            // Before the tunnel can be found.
            listed.place = None;
            change.announce = Some(listed.tunnel.clone());
        }
        if is_ready && !pooled && listed.tunnel.direction() == Direction::Reverse {
            let tunnel = listed.tunnel.clone();
            change.joined = self.join(state, &tunnel);
        } else if !is_ready && pooled {
            change.left = self.leave(state, id);
        }
        change
    }

    /// Adds a tunnel to its pools. Returns the pools, whose waiting calls must be woken without the lock.
    fn join(self: &Arc<Self>, state: &mut State, tunnel: &AcceptedTunnel) -> Vec<Arc<Pool>> {
        let of_key = tunnel.key().map(|key| self.pool_of(state, key));
        if let Some(listed) = state.tunnels.get_mut(&tunnel.id()) {
            let of_key = of_key.clone();
            listed.pooled = Some(Pooled { of_key });
        }
        // The pool of its key is joined first and left last: a tunnel that is found among all is also
        // found by its key.
        let pools: Vec<_> = of_key.into_iter().chain([self.all.clone()]).collect();
        if let Some(channel) = tunnel.channel() {
            pools.iter().for_each(|pool| pool.tunnels.join(&channel));
        }
        pools
    }

    /// Removes a tunnel from its pools. Returns the pool of its key. Dropping that takes the lock.
    #[must_use = "must be dropped without the lock"]
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
            let tunnel = listed.tunnel;
            let reason = tunnel.end_reason().unwrap_or(EndReason::PeerClosed);
            self.closed(tunnel.info(), &reason, &tunnel.stats());
        }
    }

    /// Reports a tunnel that has opened. Must be called without a lock.
    fn opened(&self, tunnel: &AcceptedTunnel) {
        self.policy.opened(tunnel);
        self.reporter.opened(tunnel.info());
    }

    /// Reports a tunnel that is closed. Must be called without a lock.
    fn closed(&self, info: &TunnelInfo, reason: &EndReason, stats: &Stats) {
        self.policy.closed(info, reason, stats);
        self.reporter.closed(info, reason, stats);
    }

    /// Reports a tunnel that was refused.
    pub(crate) fn refused(&self, info: TunnelInfo, refusal: &Refusal) {
        let Refusal { name, status } = refusal;
        telemetry::not_opened(info.direction(), NetworkRole::Server, name);
        tracing::info!(
            tunnel.id = info.shared_id(),
            tunnel.direction = %info.direction(),
            tunnel.key = info.key().map(AffinityKey::as_str),
            tunnel.peer = info.peer_addr().map(tracing::field::display),
            reason = name,
            rpc.grpc.status_code = status.code() as i32,
            detail = status.message(),
            "tunnel refused"
        );
        self.reporter
            .not_opened(info, TunnelError::Refused(status.clone()));
    }

    /// The pool of a key; a new one if there is none.
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
                registry.pool_dropped(key);
            }
        };
        let pool = Pool::of_key(key.clone(), Box::new(on_drop));
        state.pools.insert(key.clone(), Arc::downgrade(&pool));
        pool
    }

    /// Forgets the pool of a key that was dropped, unless there is a new one already.
    fn pool_dropped(&self, key: &AffinityKey) {
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
        // Cannot fail: the sender is borrowed here.
        let _ = phase.wait_for(|&phase| phase > Phase::Open).await;
    }

    /// Refuses new tunnels from now on.
    pub(crate) fn refuse_openings(&self) {
        self.enter(Phase::Refusing);
    }

    /// Enters a phase, unless the handler is already in that one or a later one.
    fn enter(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = next > *phase;
            *phase = next.max(*phase);
            forward
        });
    }

    /// Waits until a reverse tunnel that was opened later takes calls: one of the same key, or any one
    /// for a tunnel without a key.
    pub(crate) async fn replaced(self: &Arc<Self>, tunnel: &AcceptedTunnel) {
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
    pub(crate) fn tunnels(&self) -> Vec<AcceptedTunnel> {
        let state = self.lock();
        let mut tunnels: Vec<_> = state.tunnels.values().map(|l| l.tunnel.clone()).collect();
        drop(state);
        tunnels.sort_by_key(|tunnel| tunnel.id());
        tunnels
    }

    pub(crate) fn tunnel(&self, id: TunnelId) -> Option<AcceptedTunnel> {
        Some(self.lock().tunnels.get(&id)?.tunnel.clone())
    }

    /// The tunnels of a key, oldest first.
    pub(crate) fn tunnels_of(&self, key: &AffinityKey) -> Vec<AcceptedTunnel> {
        let state = self.lock();
        let ids = state.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let tunnel = |id| Some(state.tunnels.get(id)?.tunnel.clone());
        ids.iter().filter_map(tunnel).collect()
    }

    /// The number of keys, connections and addresses that have state here.
    pub(crate) fn kept_keys(&self) -> usize {
        let state = self.lock();
        state.keys.len() + state.pools.len() + state.origins.kept()
    }

    /// Whether a tunnel is listed.
    pub(crate) fn is_used(&self) -> bool {
        !self.lock().tunnels.is_empty()
    }

    /// The ids of the tunnels.
    pub(crate) fn ids(&self) -> Vec<TunnelId> {
        self.lock().tunnels.keys().copied().collect()
    }

    /// Over how long the tunnels should spread their return, if the policy says it.
    pub(crate) fn return_spread(&self) -> Option<Duration> {
        let open = self.lock().tunnels.len();
        self.policy.return_spread(open)
    }

    pub(crate) fn siblings(&self) -> Vec<String> {
        let siblings = self.siblings.lock();
        siblings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_siblings(&self, uris: Vec<String>) {
        let siblings = self.siblings.lock();
        *siblings.unwrap_or_else(PoisonError::into_inner) = uris;
    }

    /// Drains all tunnels, tells them farewell, and refuses new ones. Returns when all tunnels are closed.
    pub(crate) async fn drain(&self, timeout: Duration, farewell: Notice) {
        // First, so that each tunnel is either refused or found below.
        self.enter(Phase::Draining);
        let tunnels = self.tunnels();
        for tunnel in &tunnels {
            if farewell != Notice::new() {
                tunnel.tunnel().tell(farewell.clone());
            }
            tunnel.begin_drain(timeout);
        }
        // Calls that wait for a tunnel fail.
        for pool in self.pools() {
            pool.tunnels.wake();
        }
        for tunnel in tunnels {
            tunnel.closed().await;
        }
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        let state = self.lock();
        let of_keys = state.pools.values().filter_map(Weak::upgrade);
        of_keys.chain([self.all.clone()]).collect()
    }
}

impl State {
    /// Lists a tunnel if the limits allow it. Returns the tunnel that must be closed for it.
    fn list(
        &mut self,
        policy: &Policy,
        tunnel: &AcceptedTunnel,
        origin: Origin,
        place: Option<Place>,
    ) -> Result<Option<AcceptedTunnel>, Refusal> {
        let origin = match tunnel.key() {
            Some(_) => origin.without_address(),
            None => origin,
        };
        self.origins.check(policy, &origin)?;
        let displaced = match tunnel.key() {
            Some(key) if self.count_of(key) >= policy.max_per_key => {
                Some(self.displace(policy, key)?)
            }
            _ => None,
        };
        let open = self.tunnels.len() - self.displaced;
        if open >= policy.max_tunnels {
            let message =
                format!("the server has {open} tunnels open, as many as max_tunnels allows");
            let status = Status::resource_exhausted(message);
            return Err(Refusal::new("max_tunnels", status));
        }
        if let Some(key) = tunnel.key() {
            self.keys.entry(key.clone()).or_default().push(tunnel.id());
        }
        self.origins.add(&origin);
        let listed = Listed {
            tunnel: tunnel.clone(),
            origin,
            place,
            announced: false,
            displaced: false,
            pooled: None,
        };
        self.tunnels.insert(tunnel.id(), listed);
        Ok(displaced)
    }

    fn count_of(&self, key: &AffinityKey) -> usize {
        self.keys.get(key).map_or(0, Vec::len)
    }

    /// Removes the oldest tunnel of a full key from the key's count, if the policy is to close it.
    fn displace(&mut self, policy: &Policy, key: &AffinityKey) -> Result<AcceptedTunnel, Refusal> {
        let oldest = match policy.when_key_is_full {
            WhenKeyIsFull::CloseOldest => self.keys.get(key).and_then(|ids| ids.first().copied()),
            WhenKeyIsFull::Refuse => None,
        };
        let Some(listed) = oldest.and_then(|id| self.tunnels.get_mut(&id)) else {
            let (key, open) = (key.as_str(), self.count_of(key));
            let message = format!(
                "key {key:?} has {open} tunnels open, as many as max_tunnels_per_key allows"
            );
            let status = Status::resource_exhausted(message);
            return Err(Refusal::new("max_tunnels_per_key", status));
        };
        listed.displaced = true;
        self.displaced += 1;
        let tunnel = listed.tunnel.clone();
        self.forget_key_of(key, tunnel.id());
        Ok(tunnel)
    }

    fn unlist(&mut self, id: TunnelId) -> Option<Listed> {
        let listed = self.tunnels.remove(&id)?;
        self.displaced -= usize::from(listed.displaced);
        self.origins.remove(&listed.origin);
        if let Some(key) = listed.tunnel.key() {
            self.forget_key_of(key, id);
        }
        Some(listed)
    }

    fn forget_key_of(&mut self, key: &AffinityKey, id: TunnelId) {
        if let Some(ids) = self.keys.get_mut(key) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}
