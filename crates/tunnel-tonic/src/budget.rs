//! A memory budget that several tunnels share.
//!
//! Each tunnel reports its memory after each operation; the sum is one atomic counter. Invariants: no
//! tunnel's lock is taken while another one is held; the counter is the sum of the members' reports.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::info::TunnelId;
use crate::telemetry::BudgetMetrics;

/// A member of a budget, which can give memory back.
pub(crate) trait Shed: Send + Sync {
    /// Ends the call that holds the most memory. `false` if none holds any.
    fn shed(&self) -> bool;
}

/// A limit on the memory of all tunnels that share it, in bytes: unread messages, messages that wait
/// to be sent, and memory that tonic has reserved for messages that have begun to arrive.
///
/// Over the limit, the largest calls of the largest tunnels end with RESOURCE_EXHAUSTED until a
/// sixteenth of the budget is free. Cheap to clone; clones are the same budget.
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
    metrics: BudgetMetrics,
}

struct Entry {
    reported: Arc<AtomicUsize>,
    tunnel: Weak<dyn Shed>,
}

/// A tunnel's part of a budget.
pub(crate) struct Member {
    budget: Arc<Inner>,
    id: TunnelId,
    reported: Arc<AtomicUsize>,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                used: AtomicUsize::new(0),
                members: Mutex::default(),
                shedding: Mutex::default(),
                metrics: BudgetMetrics::new(limit),
            }),
        }
    }

    /// The memory in use, in bytes.
    pub fn used(&self) -> usize {
        self.inner.used()
    }

    pub(crate) fn join(&self, id: TunnelId, tunnel: Weak<dyn Shed>) -> Member {
        let reported = Arc::new(AtomicUsize::new(0));
        let entry = Entry {
            reported: reported.clone(),
            tunnel,
        };
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

    fn fullest(&self) -> Option<Weak<dyn Shed>> {
        let members = self.members();
        let reported = |entry: &&Entry| entry.reported.load(Ordering::Relaxed);
        let fullest = members.values().max_by_key(reported)?;
        Some(fullest.tunnel.clone())
    }
}

impl Member {
    /// Reports the tunnel's memory, under its lock. Returns whether the budget is exceeded.
    pub(crate) fn report(&self, holds: usize) -> bool {
        // Only this tunnel writes it, under its lock.
        let before = self.reported.load(Ordering::Relaxed);
        if before == holds {
            return false;
        }
        self.reported.store(holds, Ordering::Relaxed);
        let change = holds.wrapping_sub(before);
        let used = self.budget.used.fetch_add(change, Ordering::Relaxed);
        holds > before && used.wrapping_add(change) > self.budget.limit
    }

    /// Ends the largest calls until the rest fits. Must be called without a tunnel's lock.
    pub(crate) fn shed(&self) {
        // One tunnel sheds at a time. The one that does so already counts what this one reported.
        let Ok(_shedding) = self.budget.shedding.try_lock() else {
            return;
        };
        let (limit, before) = (self.budget.limit, self.budget.used());
        let mut calls = 0;
        while self.budget.used() > limit - limit / 16 {
            let fullest = self.budget.fullest().and_then(|tunnel| tunnel.upgrade());
            if !fullest.is_some_and(|tunnel| tunnel.shed()) {
                break;
            }
            calls += 1;
        }
        self.budget.metrics.shed(calls);
        tracing::warn!(
            limit,
            before,
            calls,
            "memory budget exceeded, largest calls ended"
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
