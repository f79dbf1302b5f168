//! A record of the calls that reached devices. It survives the devices.

use std::collections::HashMap;

use tokio::sync::watch;

/// How often each call has reached a device, by its number.
#[derive(Debug, Default)]
pub(crate) struct Books {
    calls: watch::Sender<HashMap<u64, usize>>,
}

impl Books {
    /// A call has reached a device.
    pub(crate) fn enter(&self, number: u64) {
        self.calls
            .send_modify(|calls| *calls.entry(number).or_default() += 1);
    }

    /// Waits until these calls have reached their devices.
    pub(crate) async fn reached(&self, numbers: &[u64]) {
        let mut calls = self.calls.subscribe();
        // Fails only when the sender is dropped, and `self` holds it.
        let _ = calls
            .wait_for(|calls| numbers.iter().all(|number| calls.contains_key(number)))
            .await;
    }

    /// How many calls have reached a device more than once.
    pub(crate) fn repeated(&self) -> usize {
        self.calls.borrow().values().filter(|&&n| n > 1).count()
    }
}

#[cfg(test)]
mod tests {
    use super::Books;

    #[tokio::test]
    async fn a_call_that_comes_twice_is_noticed_once() {
        let books = Books::default();
        for number in [1, 2, 3, 2, 2] {
            books.enter(number);
        }
        books.reached(&[1, 2, 3]).await;
        assert_eq!(books.repeated(), 1);
    }
}
