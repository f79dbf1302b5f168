//! Pools of tunnels, and calls that choose among them.
//!
//! A [`Pool`] lists the tunnels that take calls. A [`PooledCall`] picks one of them, and another one
//! if that did not process the call. `tunnel-client` and `tunnel-server` differ in when a call waits
//! and fails, which is behind [`Tunnels`].
//!
//! Invariant: as far as the pool knows, each member takes calls. A call that a member does not take is
//! retried on another one.

mod call;
mod deadline;
mod replay;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::{TunnelChannel, TunnelId};

pub use call::{
    CallOptions, PooledCall, ServedBy, Tunnels, WaitForReady, WhenNoTunnel, explained, not_sent,
};
pub use deadline::with_deadline;

/// How calls are balanced over several tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// Round-robin.
    #[default]
    RoundRobin,
    /// Of two tunnels chosen at random, the one with fewer calls in flight. For calls of uneven length
    /// or peers of uneven speed.
    FewestCalls,
}

/// The default time of silence, with calls waiting, after which a tunnel is chosen last: 1 s.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// The tunnels that take calls.
#[derive(Debug)]
pub struct Pool {
    members: Mutex<Members>,
    /// Changes whenever a tunnel joins.
    joined: watch::Sender<()>,
    /// The runtime for timers of calls that wait on other threads.
    runtime: OnceLock<Handle>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<TunnelChannel>,
    /// The position of each tunnel in the list.
    places: HashMap<TunnelId, usize>,
    /// The position at which the next round-robin pick begins.
    next: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            members: Mutex::default(),
            joined: watch::Sender::new(()),
            runtime: Handle::try_current().map_or_else(|_| OnceLock::new(), OnceLock::from),
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a tunnel. Afterwards call [`wake`](Self::wake) without any lock, for the calls that wait
    /// for a tunnel.
    pub fn join(&self, tunnel: &TunnelChannel) {
        if let Some(runtime) = tunnel.runtime() {
            self.runtime.get_or_init(|| runtime.clone());
        }
        let mut members = self.lock();
        let place = members.list.len();
        members.list.push(tunnel.clone());
        members.places.insert(tunnel.id(), place);
    }

    /// Removes a tunnel, if it is listed.
    pub fn leave(&self, id: TunnelId) {
        let left = self.lock().remove(id);
        // The channel is dropped without the lock.
        drop(left);
    }

    /// Wakes the calls that wait for a tunnel.
    pub fn wake(&self) {
        self.joined.send_replace(());
    }

    /// Changes at each [`wake`](Self::wake) from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.joined.subscribe()
    }

    /// A runtime for the timers of calls on threads without one: the runtime in which the pool was
    /// made, or that of its first tunnel.
    pub fn runtime(&self) -> Option<&Handle> {
        self.runtime.get()
    }

    /// Whether no tunnel takes calls.
    pub fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    /// The tunnels, in no order.
    pub fn tunnels(&self) -> Vec<TunnelChannel> {
        self.lock().list.clone()
    }

    /// Picks a tunnel for a call that has tried some already. A tunnel whose peer has been silent for
    /// `suspect_after` while calls wait is picked only if there is no other.
    pub fn pick(
        &self,
        balance: Balance,
        suspect_after: Duration,
        tried: &HashSet<TunnelId>,
    ) -> Option<TunnelChannel> {
        let untried = |tunnel: &TunnelChannel| !tried.contains(&tunnel.id());
        let trusted = |tunnel: &TunnelChannel| {
            let silence = tunnel.unanswered_for();
            untried(tunnel) && silence.is_none_or(|silence| silence < suspect_after)
        };
        let several = self.lock().list.len() > 1;
        several
            .then(|| self.pick_of(balance, trusted))
            .flatten()
            .or_else(|| self.pick_of(balance, untried))
    }

    fn pick_of(
        &self,
        balance: Balance,
        wanted: impl Fn(&TunnelChannel) -> bool,
    ) -> Option<TunnelChannel> {
        match balance {
            Balance::RoundRobin => self.lock().in_turn(wanted),
            Balance::FewestCalls => {
                let (one, other) = self.lock().two_at_random(wanted)?;
                let calls = |tunnel: &TunnelChannel| tunnel.stats().streams;
                match other {
                    Some(other) if calls(&other) < calls(&one) => Some(other),
                    _ => Some(one),
                }
            }
        }
    }
}

impl Members {
    fn remove(&mut self, id: TunnelId) -> Option<TunnelChannel> {
        let place = self.places.remove(&id)?;
        let removed = self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place) {
            self.places.insert(moved.id(), place);
        }
        Some(removed)
    }

    fn in_turn(&mut self, wanted: impl Fn(&TunnelChannel) -> bool) -> Option<TunnelChannel> {
        let place = self.first_from(self.next, &wanted)?;
        self.next = (place + 1) % self.list.len();
        Some(self.list[place].clone())
    }

    fn two_at_random(
        &self,
        wanted: impl Fn(&TunnelChannel) -> bool,
    ) -> Option<(TunnelChannel, Option<TunnelChannel>)> {
        let count = self.list.len();
        if count == 0 {
            return None;
        }
        let one = self.first_from(fastrand::usize(..count), &wanted)?;
        // Not the first pick again, so that all others are equally likely.
        let start = (one + fastrand::usize(1..count.max(2))) % count;
        let other = self.first_from(start, &wanted).filter(|&at| at != one);
        let tunnel = |at: usize| self.list[at].clone();
        Some((tunnel(one), other.map(tunnel)))
    }

    /// The first matching position from `start` on, once around.
    fn first_from(&self, start: usize, wanted: &impl Fn(&TunnelChannel) -> bool) -> Option<usize> {
        let count = self.list.len();
        (start..start + count)
            .map(|at| at % count)
            .find(|&at| wanted(&self.list[at]))
    }
}

#[cfg(test)]
mod tests;
