//! Where a freeze takes hold.
//!
//! Invariant: an operation that passes is polled only while the gate is open, and under its read
//! lock. Closing takes the write lock, so none is under way once that has returned.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;

use super::books::Way;

/// Open or frozen. The lock inside the watch channel is the one that operations hold.
#[derive(Default)]
pub(super) struct Gate {
    frozen: watch::Sender<Frozen>,
}

/// What stands still: everything, or one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Frozen {
    #[default]
    Nothing,
    OneWay(Way),
    Everything,
}

impl Frozen {
    /// Whether it stops an operation of this direction, or of neither.
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

    /// Returns once every poll is over that was under way, and with it what it noted down.
    pub(super) fn settle(&self) {
        self.frozen.send_if_modified(|_| false);
    }

    /// Completes an operation of one direction or of neither, while it is open. The operation must not ask the gate anything,
    /// for its lock is held, and each of its polls either does the whole of it or nothing.
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

    /// Waits until it is open to operations of this direction, or of neither.
    pub(super) async fn thawed(&self, way: Option<Way>) {
        let mut frozen = self.frozen.subscribe();
        let thawed = frozen.wait_for(|frozen| !frozen.stops(way)).await;
        thawed.expect("the sender is in here and outlives its receiver");
    }
}
