//! Memory that several tunnels share.
//!
//! Each tunnel reports what it holds after an operation has changed it; the sum is one atomic
//! counter. Invariants: a tunnel's lock is never taken while another one is held; the counter is
//! the sum of what the members have reported.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::TunnelId;
use crate::shared::Shared;

/// A limit on what all tunnels that share it hold: unread payload and message boundaries, what
/// waits to be sent, and the room that tonic has reserved for messages that have begun to arrive.
///
/// Beyond it, the calls that hold most on the tunnels that hold most end with RESOURCE_EXHAUSTED,
/// until a sixteenth of it is free. Cheap to clone; clones are the same budget.
#[derive(Clone)]
pub struct MemoryBudget {
    inner: Arc<Inner>,
}

struct Inner {
    limit: usize,
    used: AtomicUsize,
    members: Mutex<HashMap<TunnelId, Entry>>,
    /// Held while calls are ended.
    shedding: Mutex<()>,
}

struct Entry {
    reported: Arc<AtomicUsize>,
    shared: Weak<Shared>,
}

/// A tunnel's part of a budget.
pub(crate) struct Member {
    budget: Arc<Inner>,
    id: TunnelId,
    reported: Arc<AtomicUsize>,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                used: AtomicUsize::new(0),
                members: Mutex::default(),
                shedding: Mutex::default(),
            }),
        }
    }

    /// How much of it is used, in bytes.
    pub fn used(&self) -> usize {
        self.inner.used()
    }

    pub(crate) fn join(&self, shared: &Arc<Shared>) -> Member {
        let reported = Arc::new(AtomicUsize::new(0));
        let entry = Entry {
            reported: reported.clone(),
            shared: Arc::downgrade(shared),
        };
        let id = shared.info.id();
        self.inner.members().insert(id, entry);
        Member {
            budget: self.inner.clone(),
            id,
            reported,
        }
    }
}

impl Inner {
    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn members(&self) -> MutexGuard<'_, HashMap<TunnelId, Entry>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fullest(&self) -> Option<Weak<Shared>> {
        let members = self.members();
        let reported = |entry: &&Entry| entry.reported.load(Ordering::Relaxed);
        let fullest = members.values().max_by_key(reported)?;
        Some(fullest.shared.clone())
    }
}

impl Member {
    /// Reports what the tunnel holds now, under its lock. Says whether all hold too much together.
    pub(crate) fn report(&self, holds: usize) -> bool {
        // Nobody else writes it.
        let before = self.reported.load(Ordering::Relaxed);
        if before == holds {
            return false;
        }
        self.reported.store(holds, Ordering::Relaxed);
        let change = holds.wrapping_sub(before);
        let used = self.budget.used.fetch_add(change, Ordering::Relaxed);
        holds > before && used.wrapping_add(change) > self.budget.limit
    }

    /// Ends the fullest calls until what is left fits. To be called without a tunnel's lock.
    pub(crate) fn shed(&self) {
        // One tunnel sheds at a time. The one that does so already counts what this one reported.
        let Ok(_shedding) = self.budget.shedding.try_lock() else {
            return;
        };
        let (limit, before) = (self.budget.limit, self.budget.used());
        let mut calls = 0;
        while self.budget.used() > limit - limit / 16 {
            let fullest = self.budget.fullest().and_then(|shared| shared.upgrade());
            if !fullest.is_some_and(|shared| shared.with(|state| state.conn.shed())) {
                break;
            }
            calls += 1;
        }
        tracing::warn!(
            limit,
            before,
            calls,
            "calls ended: the tunnels held too much memory"
        );
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let holds = self.reported.load(Ordering::Relaxed);
        self.budget.used.fetch_sub(holds, Ordering::Relaxed);
        self.budget.members().remove(&self.id);
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("limit", &self.inner.limit)
            .field("used", &self.used())
            .finish()
    }
}
