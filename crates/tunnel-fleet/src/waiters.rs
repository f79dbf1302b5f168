//! Calls that wait for a device.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How many keys may be kept that nobody waits for any more.
const KEPT: usize = 1024;

/// The keys that calls wait for.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    senders: HashMap<String, watch::Sender<()>>,
    /// How many keys there may be before those without a waiter are dropped.
    limit: usize,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes at each [`wake`](Self::wake) of the key from now on.
    pub(crate) fn subscribe(&self, key: &str) -> watch::Receiver<()> {
        let mut keys = self.lock();
        if keys.senders.len() >= keys.limit {
            keys.senders.retain(|_, sender| !sender.is_closed());
            keys.limit = keys.senders.len() * 2 + KEPT;
        }
        match keys.senders.get(key) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(());
                keys.senders.insert(key.to_owned(), sender);
                receiver
            }
        }
    }

    /// Wakes the calls that wait for a key.
    pub(crate) fn wake(&self, key: &str) {
        let mut keys = self.lock();
        if let Some(sender) = keys.senders.get(key)
            && sender.send(()).is_err()
        {
            keys.senders.remove(key);
        }
    }

    /// Wakes all calls that wait.
    pub(crate) fn wake_all(&self) {
        self.lock()
            .senders
            .retain(|_, sender| sender.send(()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_woken_and_who_left_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let one = waiters.subscribe("one");
        let two = waiters.subscribe("two");
        waiters.wake("one");
        assert!(one.has_changed().expect("open") && !two.has_changed().expect("open"));
        waiters.wake_all();
        assert!(two.has_changed().expect("open"));
        drop((one, two));
        for key in 0..10 * KEPT {
            drop(waiters.subscribe(&key.to_string()));
        }
        assert!(waiters.lock().senders.len() <= KEPT + 2);
        waiters.wake_all();
        assert!(waiters.lock().senders.is_empty());
    }
}
