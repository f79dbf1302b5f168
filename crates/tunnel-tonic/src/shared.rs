//! One tunnel: its state behind a lock, and its lifecycle.
//!
//! Invariant: **no user code runs under the lock**: no poll, drop, wake or callback, and no log
//! line. A locked operation collects what to do in [`Actions`]; [`Shared::with`] does it after
//! unlocking.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tunnel_core::{
    Config, Connection, ConnectionError, EndReason, Offer, Stats, StreamId, TransportCause,
};

use crate::budget::{Member, MemoryBudget, Shed};
use crate::info::{NetworkRole, TunnelInfo};
use crate::lifecycle::Lifecycle;
use crate::state::{Actions, Opened, State};
use crate::telemetry::Telemetry;

/// The time of the runtime's clock, which a test may have paused.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The result of [`Shared::with_read`].
pub(crate) struct ReadResult<T> {
    pub(crate) result: T,
    /// New calls.
    pub(crate) opened: Vec<Opened>,
    /// Whether another task was woken.
    pub(crate) woke: bool,
}

/// Called after the tunnel's lifecycle has changed.
type Observer = Box<dyn Fn() + Send + Sync>;

/// One tunnel.
pub(crate) struct Shared {
    state: Mutex<State>,
    lifecycle: watch::Sender<Lifecycle>,
    observer: OnceLock<Observer>,
    /// Its part of a memory budget.
    budget: OnceLock<Member>,
    /// The runtime of the tunnel's tasks. Calls may be made outside of it.
    runtime: OnceLock<Handle>,
    /// Whether both ends carry compressed messages. Set before the first call.
    carries_compressed: AtomicBool,
    /// How many handles keep the tunnel open.
    handles: AtomicUsize,
    pub(crate) telemetry: Telemetry,
    pub(crate) info: TunnelInfo,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("info", &self.info)
            .field("lifecycle", &self.lifecycle())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(role: NetworkRole, config: Config, info: TunnelInfo) -> Arc<Self> {
        let side = role.side(info.direction());
        let mut conn = Connection::new(side, config);
        conn.keep_released();
        Arc::new(Self {
            state: Mutex::new(State::new(conn, role)),
            lifecycle: watch::Sender::new(Lifecycle::Opening),
            observer: OnceLock::new(),
            budget: OnceLock::new(),
            runtime: OnceLock::new(),
            carries_compressed: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
            telemetry: Telemetry::new(info.clone(), role),
            info,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only this crate and the state machine run under the lock. If one of them has panicked,
        // the state is still used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the state machine, once the outer call is open.
    pub(crate) fn start(&self, peer: Offer) {
        self.carries_compressed
            .store(peer.compressed_messages, Ordering::Relaxed);
        // Locking orders the store before each call.
        self.with(|state| state.start(now(), peer));
    }

    /// Whether both ends carry compressed messages, so that the edges of the tunnel leave them alone.
    pub(crate) fn carries_compressed(&self) -> bool {
        self.carries_compressed.load(Ordering::Relaxed)
    }

    /// The size of the largest message that this end accepts, in bytes.
    pub(crate) fn max_message_size(&self) -> usize {
        self.lock().conn.config().max_message_size()
    }

    /// The size of the largest frame that this end accepts, in bytes.
    pub(crate) fn max_frame_size(&self) -> usize {
        self.lock().conn.config().max_frame_size()
    }

    /// Runs an operation under the lock, then performs the actions that follow from it.
    pub(crate) fn with<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut actions = Actions::default();
        let result = {
            let mut state = self.lock();
            let result = operation(&mut state);
            state.settle(&mut actions);
            self.report_memory(&state, &mut actions);
            result
        };
        self.act(&mut actions);
        result
    }

    /// Like [`with`](Self::with), for the driver after it has read. It also returns the new calls,
    /// for which the driver is not woken.
    pub(crate) fn with_read<T>(&self, operation: impl FnOnce(&mut State) -> T) -> ReadResult<T> {
        let mut actions = Actions::default();
        let (result, opened) = {
            let mut state = self.lock();
            state.awake.begin();
            state.reading = true;
            let result = operation(&mut state);
            state.settle(&mut actions);
            self.report_memory(&state, &mut actions);
            state.reading = false;
            (result, std::mem::take(&mut state.opened))
        };
        let woke = !actions.wake.is_empty() || actions.wake_outbound.is_some();
        self.act(&mut actions);
        ReadResult {
            result,
            opened,
            woke,
        }
    }

    /// Does not wake the writer until the cork is dropped, so that all frames until then are sent
    /// in one batch.
    pub(crate) fn cork(&self) -> Cork<'_> {
        self.lock().corked = true;
        Cork(self)
    }

    /// Releases a call. The state machine is not involved, so there is nothing to act on.
    pub(crate) fn release(&self, id: StreamId) {
        let slot = self.lock().release(id);
        // Dropped without the lock.
        drop(slot);
    }

    fn act(&self, actions: &mut Actions) {
        if let Some(lifecycle) = actions.lifecycle.take() {
            self.set_lifecycle(lifecycle);
            // The observer has run: a gateway's pools have the tunnel.
            self.with(|state| state.conn.announce_ready());
        }
        for waker in actions.wake.drain(..) {
            waker.wake();
        }
        for note in actions.notes.drain(..) {
            note.log(self.telemetry.span());
        }
        if let Some(waker) = actions.wake_outbound.take() {
            waker.wake();
        }
        if let Some(waker) = actions.wake_driver.take() {
            waker.wake();
        }
        if actions.over_budget
            && let Some(member) = self.budget.get()
        {
            member.shed();
        }
        // `replaced` and `released` are dropped with the actions.
    }

    /// Counts this tunnel's memory against a budget. Only the first budget counts.
    pub(crate) fn join_budget(self: &Arc<Self>, budget: &MemoryBudget) {
        let tunnel: Weak<Self> = Arc::downgrade(self);
        self.budget
            .get_or_init(|| budget.join(self.info.id(), tunnel));
    }

    fn report_memory(&self, state: &State, actions: &mut Actions) {
        if let Some(member) = self.budget.get() {
            actions.over_budget = member.report(state.conn.memory());
        }
    }

    /// Moves the lifecycle on, never back, and calls the observer.
    fn set_lifecycle(&self, next: Lifecycle) {
        // What is set here, because another task may set the next state at once.
        let set = next.clone();
        let moved = self.lifecycle.send_if_modified(|lifecycle| {
            let forward = next.rank() > lifecycle.rank();
            if forward {
                *lifecycle = next;
            }
            forward
        });
        if moved {
            match set {
                Lifecycle::Ready => self.telemetry.ready(),
                Lifecycle::Routed => self.telemetry.opened(),
                Lifecycle::Draining => self.telemetry.draining(),
                Lifecycle::Closed(reason) => {
                    self.publish_traffic();
                    self.telemetry.closed(&reason, &self.stats());
                }
                Lifecycle::Opening | Lifecycle::Ended(_) => {}
            }
        }
        if moved && let Some(observer) = self.observer.get() {
            observer();
        }
    }

    /// Sets the function to call, without the lock, after each change of the lifecycle. Only the first
    /// one counts.
    pub(crate) fn observe(&self, observer: Observer) {
        // A second one is dropped, as documented.
        let _ = self.observer.set(observer);
    }

    /// Counts one more handle that keeps the tunnel open.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one handle less. Returns whether it was the last one.
    pub(crate) fn remove_handle(&self) -> bool {
        self.handles.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The tunnel ends, unless it has, because nothing reads it any more.
    pub(crate) fn lose_driver(&self) {
        let lost = ConnectionError::TransportLost(TransportCause::TaskDropped.into());
        self.with(|state| state.conn.handle_lost(lost));
    }

    /// The outer stream has ended: the tunnel is closed.
    pub(crate) fn set_closed(&self) {
        // Not from `lifecycle`, which may not have been set yet.
        let reason = self.end_reason();
        self.set_lifecycle(Lifecycle::Closed(reason.unwrap_or(EndReason::PeerClosed)));
    }

    /// The runtime of a tunnel that was started.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    pub(crate) fn set_runtime(&self, runtime: Handle) {
        self.runtime.get_or_init(|| runtime);
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        self.lifecycle.borrow().clone()
    }

    /// How the tunnel ended, if it has.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.lock().conn.end_reason().cloned()
    }

    /// How long calls have waited while nothing was received from the peer.
    pub(crate) fn unanswered_for(&self) -> Option<Duration> {
        let since = self.lock().conn.unanswered_since()?;
        Some(now().saturating_duration_since(since))
    }

    /// How long ago the peer was last heard.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let heard = self.lock().conn.heard_at()?;
        Some(now().saturating_duration_since(heard))
    }

    /// Whether a call could be opened now, apart from limits.
    pub(crate) fn is_ready(&self) -> bool {
        self.lock().is_ready()
    }

    /// Waits for a state of the lifecycle.
    pub(crate) async fn wait_lifecycle(
        &self,
        mut wanted: impl FnMut(&Lifecycle) -> bool,
    ) -> Lifecycle {
        let mut lifecycle = self.lifecycle.subscribe();
        match lifecycle.wait_for(|l| wanted(l)).await {
            Ok(lifecycle) => lifecycle.clone(),
            // Cannot happen: the sender is borrowed here.
            Err(_) => self.lifecycle(),
        }
    }

    /// The number of bytes handed to the transport.
    pub(crate) fn outer_bytes_sent(&self) -> u64 {
        self.lock().bytes_taken
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().conn.stats()
    }

    /// Publishes the metrics of traffic. Must be called without a lock.
    pub(crate) fn publish_traffic(&self) {
        if let Some(metrics) = self.telemetry.metrics() {
            metrics.traffic(|| {
                let state = self.lock();
                (state.conn.stats(), state.conn.memory())
            });
        }
    }

    /// The number of calls that have a slot.
    pub(crate) fn slots(&self) -> usize {
        self.lock().slots()
    }
}

impl Shed for Shared {
    fn shed(&self) -> bool {
        self.with(|state| state.conn.shed())
    }
}

/// From [`Shared::cork`].
pub(crate) struct Cork<'a>(&'a Shared);

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.corked = false);
    }
}
