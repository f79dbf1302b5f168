//! A handle to watch and stop links.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tunnel_core::Stats;
use tunnel_tonic::{TunnelId, TunnelInfo};

use super::shared::Shared;
use super::status::{LinkStatus, StopReason};

/// Watches and stops the tunnels of a [`ReverseTunnelServer`](crate::ReverseTunnelServer)
/// ([`handle`](crate::ReverseTunnelServer::handle)) or a [`ForwardChannel`](crate::ForwardChannel)
/// ([`handle`](crate::ForwardChannel::handle)). Cheap to clone, and keeps nothing running.
#[derive(Clone, Debug)]
pub struct LinksHandle {
    shared: Arc<Shared>,
}

impl LinksHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The states of the links, those of the first gateway first. Empty before a server
    /// [runs](crate::ReverseTunnelServer::run).
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.status_tx.borrow().clone()
    }

    /// The same as something to be watched. A change that is followed by another before anybody
    /// looks is not seen; what is seen last is how things stand.
    ///
    /// ```no_run
    /// # async fn example(handle: tunnel_client::LinksHandle) {
    /// let mut links = handle.watch();
    /// while links.changed().await.is_ok() {
    ///     for link in links.borrow_and_update().iter() {
    ///         println!("{}: {:?}", link.gateway(), link.state());
    ///     }
    /// }
    /// # }
    /// ```
    pub fn watch(&self) -> watch::Receiver<Vec<LinkStatus>> {
        self.shared.status_tx.subscribe()
    }

    /// Waits until a tunnel takes calls, to any of the gateways.
    ///
    /// # Errors
    ///
    /// Why the links were stopped, before that or long ago.
    pub async fn wait_connected(&self) -> Result<(), StopReason> {
        self.wait(|links| links.iter().any(LinkStatus::is_connected))
            .await
    }

    /// Waits until all links are connected at the same time.
    ///
    /// # Errors
    ///
    /// As [`wait_connected`](Self::wait_connected).
    pub async fn wait_all_connected(&self) -> Result<(), StopReason> {
        let all = |links: &Vec<LinkStatus>| {
            !links.is_empty() && links.iter().all(LinkStatus::is_connected)
        };
        self.wait(all).await
    }

    async fn wait(&self, wanted: impl FnMut(&Vec<LinkStatus>) -> bool) -> Result<(), StopReason> {
        let mut links = self.watch();
        tokio::select! {
            biased;
            reason = self.shared.registry.stopped() => Err(reason),
            // Fails only when the sender is gone, which is borrowed here.
            _ = links.wait_for(wanted) => Ok(()),
        }
    }

    /// Waits until the links were told to stop, or dropped.
    pub async fn stopped(&self) -> StopReason {
        self.shared.registry.stopped().await
    }

    /// The tunnels that are open, draining ones included, oldest first.
    pub fn tunnels(&self) -> Vec<TunnelInfo> {
        self.shared.registry.infos()
    }

    /// The counters of the tunnels that are open.
    pub fn stats(&self) -> Vec<(TunnelId, Stats)> {
        self.shared.registry.stats()
    }

    /// Ends all tunnels gracefully: from now on none is opened and new calls are refused with
    /// UNAVAILABLE; calls in flight may go on for `within`, then they are ended. Gateways that
    /// understand are told. Returns when the last tunnel has gone; so does
    /// [`ReverseTunnelServer::run`](crate::ReverseTunnelServer::run).
    ///
    /// The drain goes on when this future is dropped. A second drain can bring the deadline
    /// forward.
    pub async fn drain(&self, within: Duration) {
        self.shared.drain(within);
        self.shared.registry.none_left().await;
    }

    /// Ends all tunnels now: calls in flight are cancelled. Returns when the last tunnel has gone,
    /// which takes five seconds where a gateway does not answer.
    pub async fn close(&self) {
        self.shared.close(StopReason::Closed);
        self.shared.registry.none_left().await;
    }
}
