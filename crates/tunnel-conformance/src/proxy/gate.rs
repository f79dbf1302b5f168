//! The gate, which implements freezes.
//!
//! Invariant: an operation is polled only while the gate is open, and under its read lock. Closing
//! the gate takes the write lock, so no operation is running after it has returned.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;

use super::books::Way;

/// The state of the gate, open or frozen. Operations hold the lock inside the watch channel.
#[derive(Default)]
pub(super) struct Gate {
    frozen: watch::Sender<Frozen>,
}

/// The extent of a freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Frozen {
    #[default]
    Nothing,
    OneWay(Way),
    Everything,
}

impl Frozen {
    /// Whether the freeze stops an operation of this direction (`None`: of no direction).
    fn stops(self, way: Option<Way>) -> bool {
        match self {
            Self::Nothing => false,
            Self::OneWay(frozen) => way == Some(frozen),
            Self::Everything => true,
        }
    }
}

impl Gate {
    pub(super) fn freeze(&self, what: Frozen) {
        self.frozen.send_replace(what);
    }

    pub(super) fn thaw(&self) {
        self.freeze(Frozen::Nothing);
    }

    pub(super) fn frozen(&self) -> Frozen {
        *self.frozen.borrow()
    }

    /// Returns after every running poll has ended and has recorded its counts.
    pub(super) fn settle(&self) {
        self.frozen.send_if_modified(|_| false);
    }

    /// Runs an operation of one direction (`None`: of no direction) while the gate is open.
    ///
    /// The operation must not use the gate, because its lock is held. Each poll of the operation
    /// must do all of its work or nothing.
    pub(super) async fn pass<T>(&self, way: Option<Way>, operation: impl Future<Output = T>) -> T {
        let mut operation = pin!(operation);
        loop {
            let passed = poll_fn(|context| {
                let frozen = self.frozen.borrow();
                if frozen.stops(way) {
                    return Poll::Ready(None);
                }
                operation.as_mut().poll(context).map(Some)
            });
            if let Some(done) = passed.await {
                return done;
            }
            self.thawed(way).await;
        }
    }

    /// Waits until the gate is open to operations of this direction (`None`: of no direction).
    pub(super) async fn thawed(&self, way: Option<Way>) {
        let mut frozen = self.frozen.subscribe();
        let thawed = frozen.wait_for(|frozen| !frozen.stops(way)).await;
        thawed.expect("the sender is in here and outlives its receiver");
    }
}
