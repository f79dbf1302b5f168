//! Counts accepted and open connections, and the bytes in each direction.
//!
//! Invariant: an event is counted only after it has happened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Notify, watch};

/// One of the two directions of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the clients to the target.
    ToTarget,
    /// From the target to the clients.
    FromTarget,
}

/// The bytes that moved in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes received from the sending end.
    pub taken: u64,
    /// Bytes delivered to the receiving end. The difference is in flight, or was lost when its
    /// connection ended.
    pub delivered: u64,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    connections: watch::Sender<Connections>,
    to_target: Meter,
    from_target: Meter,
}

#[derive(Debug, Default)]
struct Connections {
    arrivals: Vec<Instant>,
    open: usize,
}

impl Books {
    pub(super) fn arrived(&self) {
        let now = Instant::now();
        self.connections
            .send_modify(|connections| connections.arrivals.push(now));
    }

    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn opened(&self) -> Open<'_> {
        self.connections
            .send_modify(|connections| connections.open += 1);
        Open(self)
    }

    pub(super) fn accepted(&self) -> usize {
        self.connections.borrow().arrivals.len()
    }

    pub(super) fn open(&self) -> usize {
        self.connections.borrow().open
    }

    pub(super) fn arrivals(&self) -> Vec<Instant> {
        self.connections.borrow().arrivals.clone()
    }

    pub(super) async fn wait_accepted(&self, count: usize) {
        self.until(|connections| connections.arrivals.len() >= count)
            .await;
    }

    pub(super) async fn wait_open(&self, count: usize) {
        self.until(|connections| connections.open == count).await;
    }

    async fn until(&self, wanted: impl FnMut(&Connections) -> bool) {
        let mut connections = self.connections.subscribe();
        let found = connections.wait_for(wanted).await;
        found.expect("the sender is in here and outlives its receiver");
    }

    pub(super) fn meter(&self, way: Way) -> &Meter {
        match way {
            Way::ToTarget => &self.to_target,
            Way::FromTarget => &self.from_target,
        }
    }
}

/// A connection that counts as open.
pub(super) struct Open<'a>(&'a Books);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0
            .connections
            .send_modify(|connections| connections.open -= 1);
    }
}

/// Counts the bytes in one direction. It is not a watch channel, because bytes move far more often
/// than a test waits for them.
#[derive(Debug, Default)]
pub(super) struct Meter {
    taken: AtomicU64,
    delivered: AtomicU64,
    moved: Notify,
}

impl Meter {
    pub(super) fn taken(&self, count: usize) {
        self.add(&self.taken, count);
    }

    pub(super) fn delivered(&self, count: usize) {
        self.add(&self.delivered, count);
    }

    fn add(&self, counter: &AtomicU64, count: usize) {
        // Sequentially consistent, so that a reader never sees `delivered` exceed `taken`.
        counter.fetch_add(count as u64, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    pub(super) fn read(&self) -> Traffic {
        let delivered = self.delivered.load(Ordering::SeqCst);
        let taken = self.taken.load(Ordering::SeqCst);
        Traffic { taken, delivered }
    }

    pub(super) async fn until(&self, mut wanted: impl FnMut(&Traffic) -> bool) -> Traffic {
        loop {
            // `Notified` receives notifications from its creation on, before it is first polled.
            let moved = self.moved.notified();
            let traffic = self.read();
            if wanted(&traffic) {
                return traffic;
            }
            moved.await;
        }
    }
}
