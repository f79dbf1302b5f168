//! Logs that a tunnel is being opened, and that it is open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;
use tunnel_client::TunnelId;

/// Logs each event once. A tunnel's first call may come before the tunnel's watcher
/// knows that it is open. Clones share the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Teller {
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    attempt: u64,
    tunnel: Option<TunnelId>,
}

impl Teller {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt to open a tunnel has begun.
    pub(crate) fn opening(&self, attempt: u64) {
        self.said().opening(attempt);
    }

    /// An attempt has succeeded.
    pub(crate) fn opened(&self, attempt: u64, tunnel: TunnelId) {
        let mut said = self.said();
        if said.tunnel < Some(tunnel) {
            said.opening(attempt);
            said.established(tunnel);
        }
    }

    /// A tunnel is open.
    pub(crate) fn established(&self, tunnel: TunnelId) {
        self.said().established(tunnel);
    }
}

impl Said {
    fn opening(&mut self, attempt: u64) {
        if self.attempt < attempt {
            self.attempt = attempt;
            info!("Opening reverse tunnel to server...");
        }
    }

    fn established(&mut self, tunnel: TunnelId) {
        if self.tunnel < Some(tunnel) {
            self.tunnel = Some(tunnel);
            info!("✓ Reverse tunnel established");
            info!("Waiting for calls from server...");
        }
    }
}
