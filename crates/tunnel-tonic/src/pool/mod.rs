//! Tunnels that take calls, and calls that find one of them.
//!
//! A [`Pool`] lists the tunnels, a [`PooledCall`] is a call over them: it picks a tunnel, and
//! another one where that did not take it. For crates that establish tunnels, as `tunnel-client`
//! and `tunnel-server` are; what differs between them is behind [`Tunnels`].
//!
//! Invariant: a member takes calls as far as its pool was told; a call that finds otherwise
//! moves on.

mod call;
mod replay;
mod within;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::{TunnelChannel, TunnelId};

pub use call::{CallOptions, PooledCall, ServedBy, Tunnels, WaitForReady, WhenNoTunnel, explained};
pub use within::within;

/// How a call picks one of several tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// Each tunnel in turn.
    #[default]
    RoundRobin,
    /// Of two tunnels, chosen at random, the one with fewer calls in flight: nearly as good as
    /// looking at all of them, at any number. For calls of uneven length, or peers of uneven
    /// speed.
    FewestCalls,
}

/// After how much silence with calls waiting a tunnel is chosen last, unless set otherwise: 1 s.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// Tunnels that take calls.
#[derive(Debug)]
pub struct Pool {
    members: Mutex<Members>,
    /// Changes whenever a tunnel joins.
    joined: watch::Sender<()>,
    /// Where those who wait on other threads have their timers.
    runtime: OnceLock<Handle>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<TunnelChannel>,
    /// Where each stands in the list.
    places: HashMap<TunnelId, usize>,
    /// Where the next turn begins.
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

    /// Takes a tunnel in. Calls that wait for one are to be woken afterwards
    /// ([`wake`](Self::wake)), without any lock.
    pub fn join(&self, tunnel: &TunnelChannel) {
        if let Some(runtime) = tunnel.runtime() {
            self.runtime.get_or_init(|| runtime.clone());
        }
        let mut members = self.lock();
        let place = members.list.len();
        members.list.push(tunnel.clone());
        members.places.insert(tunnel.id(), place);
    }

    /// Takes a tunnel out, if it is in.
    pub fn leave(&self, id: TunnelId) {
        let left = self.lock().remove(id);
        // Whatever the tunnel's own end does, it does without the lock.
        drop(left);
    }

    /// Has calls that wait for a tunnel look again.
    pub fn wake(&self) {
        self.joined.send_replace(());
    }

    /// Changes at each [`wake`](Self::wake) from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.joined.subscribe()
    }

    /// A runtime for the timers of those who wait on a thread that has none: the one in which the
    /// pool was made, or that of its first tunnel.
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

    /// A tunnel for a call that has tried some already. One whose far end has been silent for
    /// `suspect_after` while calls wait is chosen only if there is no other.
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
        // From anywhere but there, so that all others are as likely when none was tried.
        let start = (one + fastrand::usize(1..count.max(2))) % count;
        let other = self.first_from(start, &wanted).filter(|&at| at != one);
        let tunnel = |at: usize| self.list[at].clone();
        Some((tunnel(one), other.map(tunnel)))
    }

    /// The first place from this one on, once around, whose tunnel is wanted.
    fn first_from(&self, start: usize, wanted: &impl Fn(&TunnelChannel) -> bool) -> Option<usize> {
        let count = self.list.len();
        (start..start + count)
            .map(|at| at % count)
            .find(|&at| wanted(&self.list[at]))
    }
}

#[cfg(test)]
mod tests;
