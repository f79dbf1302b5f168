//! One tunnel: its state behind a lock, and how far it has come.
//!
//! Invariant: **no user code runs under the lock**: no poll, drop, wake or callback, and no log
//! line. A locked operation collects what to do in [`Actions`]; [`Shared::with`] does it after
//! unlocking.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tunnel_core::{Config, Connection, EndReason, Report, Side, Stats, StreamId};

use crate::MemoryBudget;
use crate::budget::Member;
use crate::info::TunnelInfo;
use crate::life::Life;
use crate::state::{Actions, Opened, State};

/// The time by the runtime's clock: the one that its timers go by, also where a test has
/// paused it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What came of reading.
pub(crate) struct ReadResult<T> {
    pub(crate) result: T,
    /// The calls that have come.
    pub(crate) opened: Vec<Opened>,
    /// Whether another task was woken.
    pub(crate) woke: bool,
}

/// What is called after the tunnel's life has changed.
type Observer = Box<dyn Fn() + Send + Sync>;

/// One tunnel.
pub(crate) struct Shared {
    state: Mutex<State>,
    life: watch::Sender<Life>,
    observer: OnceLock<Observer>,
    /// Its part of a budget that tunnels share.
    budget: OnceLock<Member>,
    /// Where the tunnel's task runs. Calls may be made from anywhere.
    runtime: OnceLock<Handle>,
    pub(crate) info: TunnelInfo,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("info", &self.info)
            .field("life", &self.life())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(side: Side, config: Config, info: TunnelInfo) -> Arc<Self> {
        let mut conn = Connection::new(side, config);
        conn.keep_released();
        Arc::new(Self {
            state: Mutex::new(State::new(conn)),
            life: watch::Sender::new(Life::Opening),
            observer: OnceLock::new(),
            budget: OnceLock::new(),
            runtime: OnceLock::new(),
            info,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock but this crate and the state machine; if
        // one of them did, the state is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the state, then calls the wakers that follow from it.
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

    /// The same for the driver, which has read something: also returns the calls that have come,
    /// without waking it for them.
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

    /// Leaves the transport's writer asleep until the cork is dropped, so that what comes up
    /// meanwhile leaves together.
    pub(crate) fn cork(&self) -> Cork<'_> {
        self.lock().corked = true;
        Cork(self)
    }

    /// Lets go of a call. The state machine has no part in it, so nothing is owed.
    pub(crate) fn release(&self, id: StreamId) {
        let slot = self.lock().release(id);
        // Without the lock.
        drop(slot);
    }

    fn act(&self, actions: &mut Actions) {
        if let Some(life) = actions.life.take() {
            self.set_life(life);
        }
        for waker in actions.wake.drain(..) {
            waker.wake();
        }
        for note in actions.notes.drain(..) {
            note.log(self.info.id());
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

    /// Counts what this tunnel holds against a budget. Only the first one given counts.
    pub(crate) fn join_budget(self: &Arc<Self>, budget: &MemoryBudget) {
        self.budget.get_or_init(|| budget.join(self));
    }

    fn report_memory(&self, state: &State, actions: &mut Actions) {
        if let Some(member) = self.budget.get() {
            actions.over_budget = member.report(state.conn.memory());
        }
    }

    /// Moves on, never back, and has the observer look.
    fn set_life(&self, next: Life) {
        let moved = self.life.send_if_modified(|life| {
            let forward = next.rank() > life.rank();
            if forward {
                *life = next;
            }
            forward
        });
        if moved && let Life::Ended(reason) = self.life() {
            tracing::debug!(tunnel = %self.info.id(), reason = %Report(&reason), "tunnel ended");
        }
        if moved && let Some(observer) = self.observer.get() {
            observer();
        }
    }

    /// Has a function called, without the lock, after each change of the tunnel's life. Only the
    /// first one given counts.
    pub(crate) fn observe(&self, observer: Observer) {
        // A second one is dropped, as documented.
        let _ = self.observer.set(observer);
    }

    /// The outer stream has ended, and with it everything.
    pub(crate) fn set_gone(&self) {
        // Not as `life` has it: whoever ended the tunnel may not have said so yet.
        let reason = self.end_reason();
        self.set_life(Life::Gone(reason.unwrap_or(EndReason::PeerClosed)));
    }

    /// The runtime of a tunnel that was started.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    pub(crate) fn set_runtime(&self, runtime: Handle) {
        self.runtime.get_or_init(|| runtime);
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    /// How the tunnel ended, if it has.
    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.lock().conn.end_reason().cloned()
    }

    /// For how long calls have waited without anything being heard from the peer.
    pub(crate) fn unanswered_for(&self) -> Option<Duration> {
        let since = self.lock().conn.unanswered_since()?;
        Some(now().saturating_duration_since(since))
    }

    /// Whether a call could be opened now, but for the limits.
    pub(crate) fn takes_calls(&self) -> bool {
        self.lock().takes_calls()
    }

    /// Waits until the tunnel's life is what is asked for.
    pub(crate) async fn wait_life(&self, mut wanted: impl FnMut(&Life) -> bool) -> Life {
        let mut life = self.life.subscribe();
        match life.wait_for(|l| wanted(l)).await {
            Ok(life) => life.clone(),
            // Cannot happen: the sender is borrowed here.
            Err(_) => self.life(),
        }
    }

    /// How many bytes the transport has taken to be sent.
    pub(crate) fn outer_bytes_sent(&self) -> u64 {
        self.lock().bytes_taken
    }

    pub(crate) fn stats(&self) -> Stats {
        self.lock().conn.stats()
    }

    /// How many calls the binding keeps something for.
    pub(crate) fn slots(&self) -> usize {
        self.lock().slots()
    }
}

/// From [`Shared::cork`].
pub(crate) struct Cork<'a>(&'a Shared);

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.corked = false);
    }
}
