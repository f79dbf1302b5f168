//! A handle to watch and stop links.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tunnel_core::Stats;
use tunnel_tonic::{TunnelEvents, TunnelId, TunnelInfo};

use super::shared::Shared;
use super::status::{LinkStatus, LinksStopped, StopReason};
use crate::gateway::Gateway;

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

    /// The states of the links, those of the gateway that was added first come first. Empty before a server
    /// [runs](crate::ReverseTunnelServer::run) or [serves](crate::ReverseTunnelServer::serve).
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.status_tx.borrow().clone()
    }

    /// A receiver of the states of the links. It always has the latest states; states in between may be
    /// missed.
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

    /// Waits until a link is [connected](crate::LinkState::Connected), to any of the gateways.
    ///
    /// # Errors
    ///
    /// [`LinksStopped`] if the links were stopped.
    pub async fn connected(&self) -> Result<(), LinksStopped> {
        self.wait(|links| links.iter().any(LinkStatus::is_connected))
            .await
    }

    /// Waits until all links are connected at the same time, except those to removed gateways.
    ///
    /// # Errors
    ///
    /// [`LinksStopped`] if the links were stopped.
    pub async fn all_connected(&self) -> Result<(), LinksStopped> {
        let all = |links: &Vec<LinkStatus>| {
            let mut wanted = links.iter().filter(|link| !link.removed).peekable();
            wanted.peek().is_some() && wanted.all(LinkStatus::is_connected)
        };
        self.wait(all).await
    }

    async fn wait(&self, wanted: impl FnMut(&Vec<LinkStatus>) -> bool) -> Result<(), LinksStopped> {
        let mut links = self.watch();
        tokio::select! {
            biased;
            reason = self.shared.registry.stopped() => Err(LinksStopped { reason }),
            // Cannot fail: the sender is borrowed here.
            _ = links.wait_for(wanted) => Ok(()),
        }
    }

    /// Waits until the links are stopped, and returns why.
    pub async fn stopped(&self) -> StopReason {
        self.shared.registry.stopped().await
    }

    /// The tunnels that are open, draining ones included, oldest first.
    pub fn tunnels(&self) -> Vec<TunnelInfo> {
        self.shared.registry.infos()
    }

    /// A stream of the tunnels that open, close or are not opened from now on. Unlike
    /// [`watch`](Self::watch) it misses none, unless the subscriber is slow.
    pub fn events(&self) -> TunnelEvents {
        self.shared.registry.reporter.subscribe()
    }

    /// The number of tunnels that are open, now and after each change.
    pub fn open_tunnels(&self) -> watch::Receiver<usize> {
        self.shared.registry.reporter.open()
    }

    /// The counters of the tunnels that are open.
    pub fn stats(&self) -> Vec<(TunnelId, Stats)> {
        self.shared.registry.stats()
    }

    /// Adds a gateway while the links run, or before. Links to it are started like those to the others, as many as
    /// [`tunnels_per_gateway`](crate::ReverseTunnelServerBuilder::tunnels_per_gateway) says, and are shown last.
    ///
    /// Several gateways may have the same name. As with [`remove_gateway`](Self::remove_gateway), do not call this while
    /// the value of a [`watch`](Self::watch) is borrowed: it waits for the end of the borrow.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::{Gateway, LinksHandle, LinksStopped};
    ///
    /// /// Moves a device. The new gateway is added first, so that calls always reach the device.
    /// fn move_to(handle: &LinksHandle, new: Endpoint) -> Result<(), LinksStopped> {
    ///     handle.add_gateway(Gateway::from(new).name("new"))?;
    ///     handle.remove_gateway("old");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LinksStopped`] if the links were stopped.
    pub fn add_gateway(&self, gateway: impl Into<Gateway>) -> Result<(), LinksStopped> {
        self.shared.add_gateway(gateway.into())
    }

    /// Removes the gateways with this [name](Gateway::name), and returns whether there were any. It does not wait.
    ///
    /// A tunnel of a removed gateway that is lost is not replaced. The others are drained, with the builder's
    /// `drain_timeout` for calls in flight. If there are other gateways, that begins when they have replaced the
    /// tunnel, or after the builder's `open_timeout`. Then the link is not shown any more.
    ///
    /// Without any gateway the server or channel goes on, and a gateway can be added later. Meanwhile the calls of a
    /// [`ForwardChannel`](crate::ForwardChannel) fail with UNAVAILABLE, unless they
    /// [wait](crate::WhenNoTunnel).
    pub fn remove_gateway(&self, name: &str) -> bool {
        self.shared.remove_gateway(name)
    }

    /// Ends all tunnels gracefully: no tunnel is opened any more, new calls are refused with UNAVAILABLE,
    /// and calls in flight are ended after `timeout`. The gateways get a drain notice. Returns when the
    /// last tunnel is closed; so does
    /// [`ReverseTunnelServer::run`](crate::ReverseTunnelServer::run).
    ///
    /// The drain goes on when the future is dropped. A second drain can end the calls earlier.
    pub async fn drain(&self, timeout: Duration) {
        self.shared.drain(timeout);
        self.shared.registry.none_left().await;
    }

    /// Ends all tunnels now: calls in flight are cancelled. Returns when the last tunnel is closed, which
    /// takes five seconds if a gateway does not answer.
    pub async fn close(&self) {
        self.shared.close(StopReason::Closed);
        self.shared.registry.none_left().await;
    }
}
