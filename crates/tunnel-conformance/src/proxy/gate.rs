//! Where a freeze takes hold.
//!
//! Invariant: an operation that passes is polled only while the gate is open, and under its read
//! lock. Closing takes the write lock, so none is under way once that has returned.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;

/// Open or frozen. The lock inside the watch channel is the one that operations hold.
#[derive(Default)]
pub(super) struct Gate {
    frozen: watch::Sender<bool>,
}

impl Gate {
    pub(super) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(super) fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    /// Returns once every poll is over that was under way, and with it what it noted down.
    pub(super) fn settle(&self) {
        self.frozen.send_if_modified(|_| false);
    }

    /// Completes an operation, while it is open. The operation must not ask the gate anything,
    /// for its lock is held, and each of its polls either does the whole of it or nothing.
    pub(super) async fn pass<T>(&self, operation: impl Future<Output = T>) -> T {
        let mut operation = pin!(operation);
        loop {
            let passed = poll_fn(|context| {
                let frozen = self.frozen.borrow();
                if *frozen {
                    return Poll::Ready(None);
                }
                operation.as_mut().poll(context).map(Some)
            });
            if let Some(done) = passed.await {
                return done;
            }
            self.thawed().await;
        }
    }

    /// Waits until it is open.
    pub(super) async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        let thawed = frozen.wait_for(|frozen| !frozen).await;
        thawed.expect("the sender is in here and outlives its receiver");
    }
}
