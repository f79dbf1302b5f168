//! The tunnels that are open on a handler.
//!
//! Invariant: a tunnel is listed from before its first frame until its outer stream has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tunnel_core::EndReason;
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
    /// Until when the tunnels are being drained; new ones are refused.
    draining: Option<Option<Instant>>,
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

    /// Lists a tunnel; `false` if the handler takes no new ones.
    pub(crate) fn insert(self: &Arc<Self>, tunnel: &Tunnel) -> bool {
        let id = tunnel.info().id();
        {
            let mut state = self.lock();
            if state.draining.is_some() {
                return false;
            }
            state.tunnels.insert(id, tunnel.clone());
            self.count.send_replace(state.tunnels.len());
        }
        let (registry, tunnel) = (self.clone(), tunnel.clone());
        tokio::spawn(async move {
            let reason = tunnel.gone().await;
            registry.remove(id, &reason);
        });
        true
    }

    fn remove(&self, id: TunnelId, reason: &EndReason) {
        tracing::debug!(tunnel = %id, %reason, "tunnel gone");
        let mut state = self.lock();
        state.tunnels.remove(&id);
        self.count.send_replace(state.tunnels.len());
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
        let deadline = Instant::now().checked_add(within);
        self.lock().draining = Some(deadline);
        for tunnel in self.tunnels() {
            tunnel.drain(deadline);
        }
        let mut count = self.count.subscribe();
        // Fails only when the sender is gone, which is borrowed here.
        let _ = count.wait_for(|&n| n == 0).await;
    }
}
