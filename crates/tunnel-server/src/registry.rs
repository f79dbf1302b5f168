//! The tunnels that are open on a handler.
//!
//! Invariant: a tunnel is listed from before its first frame until its outer stream has ended,
//! or its runtime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tunnel_tonic::{Tunnel, TunnelId, TunnelInfo};

/// The open tunnels of one handler.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    /// How many tunnels are open.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    tunnels: HashMap<TunnelId, Tunnel>,
    /// The tunnels are being drained; new ones are refused.
    draining: bool,
}

/// A tunnel's place in the list, which it loses when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Arc<Registry>,
    id: TunnelId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.registry.lock();
            let removed = state.tunnels.remove(&self.id);
            self.registry.count.send_replace(state.tunnels.len());
            removed
        };
        let reason = removed.and_then(|tunnel| tunnel.end_reason());
        tracing::debug!(tunnel = %self.id, ?reason, "tunnel gone");
    }
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a tunnel; `None` if the handler takes no new ones.
    pub(crate) fn insert(self: &Arc<Self>, tunnel: &Tunnel) -> Option<Entry> {
        let id = tunnel.info().id();
        let mut state = self.lock();
        if state.draining {
            return None;
        }
        state.tunnels.insert(id, tunnel.clone());
        self.count.send_replace(state.tunnels.len());
        let registry = self.clone();
        Some(Entry { registry, id })
    }

    pub(crate) fn infos(&self) -> Vec<TunnelInfo> {
        let state = self.lock();
        let mut infos: Vec<_> = state.tunnels.values().map(|t| t.info().clone()).collect();
        infos.sort_by_key(TunnelInfo::id);
        infos
    }

    pub(crate) fn tunnels(&self) -> Vec<Tunnel> {
        self.lock().tunnels.values().cloned().collect()
    }

    /// Drains all tunnels and refuses new ones; returns when all have gone.
    pub(crate) async fn drain(&self, within: Duration) {
        // By the clock that the tunnels' timers go by.
        let now = tokio::time::Instant::now().into_std();
        let deadline = now.checked_add(within);
        self.lock().draining = true;
        for tunnel in self.tunnels() {
            tunnel.drain(deadline);
        }
        let mut count = self.count.subscribe();
        // Fails only when the sender is gone, which is borrowed here.
        let _ = count.wait_for(|&n| n == 0).await;
    }
}
