//! The state shared by the proxy and its tasks.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::books::Books;
use super::gate::Gate;

/// The delay that is used if a delay overflows the clock: about thirty years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have closed their halves, and the closes were delivered.
    Closed,
    /// By an order, with the end of the stream (FIN).
    Cut,
    /// By an order or a peer, with a reset (RST).
    Reset,
}

/// The state shared by the proxy and its tasks.
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) books: Books,
    settings: Mutex<Settings>,
    /// The last order to end all connections. A connection obeys the orders given after it was
    /// accepted.
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

    /// The delivery time of bytes that have just been read.
    pub(super) fn due(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let due = now.checked_add(self.settings().delay);
        due.unwrap_or_else(|| now + NEVER)
    }
}
