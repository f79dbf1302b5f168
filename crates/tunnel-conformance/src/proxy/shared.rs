//! What the proxy and its tasks have in common.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::books::Books;
use super::gate::Gate;

/// What stands in for a delay that the clock cannot count to: some thirty years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have closed their halves, and have been told that the other one did.
    Closed,
    /// By order, with an end of the stream.
    Cut,
    /// By order or by a peer, with a reset.
    Reset,
}

/// What the proxy and its tasks have in common.
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) books: Books,
    settings: Mutex<Settings>,
    /// The last order to end whatever connections there are; each one heeds those that were given
    /// after it arrived.
    pub(super) orders: watch::Sender<Option<End>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) target: Option<SocketAddr>,
    pub(super) delay: Duration,
}

impl Shared {
    pub(super) fn new(target: SocketAddr) -> Self {
        let settings = Settings {
            target: Some(target),
            delay: Duration::ZERO,
        };
        Self {
            gate: Gate::default(),
            books: Books::default(),
            settings: Mutex::new(settings),
            orders: watch::Sender::new(None),
        }
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When something is due at the other end that has just come in.
    pub(super) fn due(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let due = now.checked_add(self.settings().delay);
        due.unwrap_or_else(|| now + NEVER)
    }
}
