//! Reverse tunnels that take calls, and channels over them.
//!
//! Invariant: a member takes calls as far as its pool was told; a call that finds otherwise
//! moves on.

mod call;
mod channel;
mod replay;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use tunnel_tonic::{AffinityKey, TunnelChannel, TunnelId};

use crate::TunnelHandle;
use crate::registry::Registry;

pub use call::{ReverseResponseFuture, ServedBy};
pub use channel::{ReverseChannel, WaitForReady};

/// How a call picks one of several tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// Each tunnel in turn.
    #[default]
    RoundRobin,
    /// Of two tunnels, chosen at random, the one with fewer calls in flight: nearly as good as
    /// looking at all of them, at any number. For calls of uneven length, or devices of uneven
    /// speed.
    FewestCalls,
}

/// The tunnels of one key, or all.
#[derive(Debug)]
pub(crate) struct Pool {
    key: Option<AffinityKey>,
    members: Mutex<Members>,
    /// Changes whenever a tunnel joins.
    joined: watch::Sender<()>,
    /// Who is told when the pool has gone.
    registry: Weak<Registry>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<TunnelHandle>,
    /// Where each stands in the list.
    places: HashMap<TunnelId, usize>,
    /// Where the next turn begins.
    next: usize,
}

impl Pool {
    pub(crate) fn new(key: Option<AffinityKey>, registry: Weak<Registry>) -> Arc<Self> {
        Arc::new(Self {
            key,
            members: Mutex::default(),
            joined: watch::Sender::new(()),
            registry,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key(&self) -> Option<&AffinityKey> {
        self.key.as_ref()
    }

    /// Takes a tunnel in. Those who wait for one are to be woken afterwards, without any lock.
    pub(crate) fn join(&self, tunnel: &TunnelHandle) {
        let mut members = self.lock();
        let place = members.list.len();
        members.list.push(tunnel.clone());
        members.places.insert(tunnel.id(), place);
    }

    pub(crate) fn leave(&self, id: TunnelId) {
        let left = self.lock().remove(id);
        // Whatever the tunnel's own end does, it does without the lock.
        drop(left);
    }

    /// Has those who wait for a tunnel look again.
    pub(crate) fn wake(&self) {
        self.joined.send_replace(());
    }

    /// To learn of the tunnels that join from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.joined.subscribe()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    pub(crate) fn tunnels(&self) -> Vec<TunnelHandle> {
        self.lock().list.clone()
    }

    /// A tunnel for a call that has tried some already.
    pub(crate) fn pick(
        &self,
        balance: Balance,
        tried: &HashSet<TunnelId>,
    ) -> Option<TunnelChannel> {
        match balance {
            Balance::RoundRobin => self.lock().in_turn(tried)?.channel(),
            Balance::FewestCalls => {
                let (one, other) = self.lock().two_at_random(tried)?;
                let calls = |tunnel: &TunnelHandle| tunnel.stats().streams;
                match other {
                    Some(other) if calls(&other) < calls(&one) => other.channel(),
                    _ => one.channel(),
                }
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let (Some(key), Some(registry)) = (&self.key, self.registry.upgrade()) {
            registry.pool_gone(key);
        }
    }
}

impl Members {
    fn remove(&mut self, id: TunnelId) -> Option<TunnelHandle> {
        let place = self.places.remove(&id)?;
        let removed = self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place) {
            self.places.insert(moved.id(), place);
        }
        Some(removed)
    }

    fn in_turn(&mut self, tried: &HashSet<TunnelId>) -> Option<TunnelHandle> {
        let place = self.untried_from(self.next, tried)?;
        self.next = (place + 1) % self.list.len();
        Some(self.list[place].clone())
    }

    fn two_at_random(
        &self,
        tried: &HashSet<TunnelId>,
    ) -> Option<(TunnelHandle, Option<TunnelHandle>)> {
        let count = self.list.len();
        if count == 0 {
            return None;
        }
        let one = self.untried_from(fastrand::usize(..count), tried)?;
        // From anywhere but there, so that all others are as likely when none was tried.
        let start = (one + fastrand::usize(1..count.max(2))) % count;
        let other = self.untried_from(start, tried).filter(|&at| at != one);
        let tunnel = |at: usize| self.list[at].clone();
        Some((tunnel(one), other.map(tunnel)))
    }

    /// The first place from this one on, once around, whose tunnel was not tried.
    fn untried_from(&self, start: usize, tried: &HashSet<TunnelId>) -> Option<usize> {
        let count = self.list.len();
        (start..start + count)
            .map(|at| at % count)
            .find(|&at| !tried.contains(&self.list[at].id()))
    }
}

#[cfg(test)]
mod tests;
