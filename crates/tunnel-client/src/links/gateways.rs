//! The gateways of a server or channel, which are added and removed at run time.
//!
//! A gateway's number is never used again, and so are the numbers of its links. What is added is also
//! queued, until [`Shared::run`](super::Shared::run) starts its links.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::gateway_state::GatewayState;
use crate::gateway::Gateway;

#[derive(Debug)]
pub(crate) struct Gateways {
    state: Mutex<State>,
    /// Changes whenever a gateway is added.
    added: watch::Sender<()>,
    /// The number of links to each gateway.
    links: usize,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were added.
    list: Vec<Arc<GatewayState>>,
    /// Added, and their links not started yet.
    queue: Vec<Arc<GatewayState>>,
    next: usize,
    next_link: usize,
    /// Whether the links run, so that those of an added gateway are shown.
    running: bool,
}

impl Gateways {
    pub(crate) fn new(gateways: Vec<Gateway>, links: usize) -> Self {
        let new = Self {
            state: Mutex::default(),
            added: watch::Sender::new(()),
            links,
        };
        for gateway in gateways {
            new.lock().add(gateway, None, links);
        }
        new
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a gateway, for a user or as one of the addresses of a name, unless `check` fails. `show` is called under
    /// the lock if the links run. Returns `None` if the name was removed.
    pub(crate) fn add<E>(
        &self,
        gateway: Gateway,
        parent: Option<&Arc<GatewayState>>,
        check: impl FnOnce() -> Result<(), E>,
        show: impl FnOnce(&GatewayState),
    ) -> Result<Option<Arc<GatewayState>>, E> {
        let mut state = self.lock();
        check()?;
        if parent.is_some_and(|parent| !state.has(parent.number)) {
            return Ok(None);
        }
        let added = state.add(gateway, parent.cloned(), self.links);
        if state.running {
            show(&added);
        }
        drop(state);
        self.added.send_replace(());
        Ok(Some(added))
    }

    /// Removes the gateways that satisfy a condition, and those at the addresses of such a name. Returns their number.
    /// `show` is called under the lock.
    pub(crate) fn remove(
        &self,
        wanted: impl Fn(&GatewayState) -> bool,
        show: impl FnOnce(&[Arc<GatewayState>]),
    ) -> usize {
        let mut state = self.lock();
        let numbers: Vec<_> = state
            .list
            .iter()
            .filter(|g| wanted(g))
            .map(|g| g.number)
            .collect();
        let belongs =
            |gateway: &mut Arc<GatewayState>| numbers.iter().any(|&n| gateway.belongs_to(n));
        let removed: Vec<_> = state.list.extract_if(.., belongs).collect();
        show(&removed);
        drop(state);
        removed.iter().for_each(|gateway| gateway.remove());
        removed.len()
    }

    /// Notes that the links run. `show` is called under the lock for each gateway, the first time.
    pub(crate) fn start(&self, show: impl FnMut(&GatewayState)) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.running, true) {
            state.list.iter().map(|gateway| &**gateway).for_each(show);
        }
    }

    /// The gateways whose links are to be started.
    pub(crate) fn take_queue(&self) -> Vec<Arc<GatewayState>> {
        std::mem::take(&mut self.lock().queue)
    }

    /// Changes whenever a gateway is added from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.added.subscribe()
    }

    pub(crate) fn all(&self) -> Vec<Arc<GatewayState>> {
        self.lock().list.clone()
    }

    pub(crate) fn first(&self) -> Option<Arc<GatewayState>> {
        self.lock().list.first().cloned()
    }

    /// The gateways other than one that can be dialled, beginning with the next.
    pub(crate) fn others(&self, than: &GatewayState) -> Vec<Arc<GatewayState>> {
        let (mut later, mut earlier) = (Vec::new(), Vec::new());
        let state = self.lock();
        let can_be_dialled = |gateway: &&Arc<GatewayState>| gateway.gateway.lookup().is_none();
        for gateway in state.list.iter().filter(can_be_dialled) {
            match gateway.number.cmp(&than.number) {
                Ordering::Less => earlier.push(gateway.clone()),
                Ordering::Equal => {}
                Ordering::Greater => later.push(gateway.clone()),
            }
        }
        later.append(&mut earlier);
        later
    }
}

impl State {
    fn has(&self, number: usize) -> bool {
        self.list.iter().any(|gateway| gateway.number == number)
    }

    fn add(
        &mut self,
        gateway: Gateway,
        parent: Option<Arc<GatewayState>>,
        links: usize,
    ) -> Arc<GatewayState> {
        let (number, first) = (self.next, self.next_link);
        let added = Arc::new(GatewayState::new(gateway, parent, number, first, links));
        self.next += 1;
        self.next_link = added.links().end;
        self.list.push(added.clone());
        self.queue.push(added.clone());
        added
    }
}
