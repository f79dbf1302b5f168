//! Reverse tunnels: this side dials and serves the calls.

mod builder;

use std::sync::Arc;

use tunnel_core::EndReason;
use tunnel_tonic::{CallService, Tunnel, TunnelError};

pub use builder::ReverseTunnelServerBuilder;

use crate::Gateway;
use crate::links::{Attempt, LinksHandle, Purpose, Settings, Shared, StopReason};

/// Opens tunnels to gateways and serves the calls that arrive through them. So a device behind NAT
/// or a firewall can be called from its gateways with ordinary clients.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # use tonic::service::Routes;
/// # let device = Routes::default();
/// use std::time::Duration;
/// use tonic::transport::Endpoint;
/// use tunnel_client::ReverseTunnelServer;
///
/// let server = ReverseTunnelServer::builder(Endpoint::from_static("http://gateway.example:50051"))
///     .gateway(Endpoint::from_static("http://another.example:50051"))
///     .add_routes(device) // or .add_service(DeviceServer::new(..))
///     .build();
/// let handle = server.handle();
/// let running = tokio::spawn(server.run());
///
/// tokio::signal::ctrl_c().await?;
/// handle.drain(Duration::from_secs(10)).await;
/// println!("{}", running.await?);
/// # Ok(())
/// # }
/// ```
///
/// # One tunnel, or tunnels that are kept up
///
/// [`serve`](Self::serve) opens one tunnel, serves its calls, and returns why it ended.
/// [`run`](Self::run) keeps tunnels up: one *link* for each of
/// [`tunnels_per_gateway`](ReverseTunnelServerBuilder::tunnels_per_gateway) to each gateway.
///
/// # The states of a link
///
/// ```text
///                      refused or failed
///              ┌────────────────────────────────┐
///              ▼                                │
///         BackingOff ──── time is up ────▶ Connecting ◀── start
///          ▲      ▲                             │
///   broken │      │ failed                      │ accepted
///          │      │                             ▼
///          │      └────────── Draining ───▶ Connected
///          │                      ▲    accepted │ │
///          │                      └─────────────┘ │
///          │               told to drain          │
///          └──────────────────────────────────────┘
///
///   from anywhere: told to drain or to close ──▶ (Draining) ──▶ Stopped
/// ```
///
/// - *Connected*: the gateway has accepted the tunnel. Calls can arrive from now on.
/// - *Backing off*: the link waits as [`Backoff`](crate::Backoff) says. Lasting refusals
///   (UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT, UNIMPLEMENTED) are retried slowly, are
///   marked as `refused` in [`LinkState::BackingOff`](crate::LinkState::BackingOff), and are logged
///   as warnings. A tunnel that the gateway ends later with such a status counts as refused too.
/// - *Draining*: the gateway has asked the tunnel to drain. Calls in flight go on, and the link opens
///   another tunnel. With several gateways, it opens a *fallback tunnel* to the next gateway that is
///   not known to be away ([`LinkStatus::fallback_tunnel`](crate::LinkStatus::fallback_tunnel)), and
///   dials its own gateway with backoff; once that accepts, the fallback tunnel is drained. With one
///   gateway the link dials it again at once, because a load balancer may lead to another instance.
///   A gateway that drains one young tunnel after the other is dialled with backoff.
/// - If the gateway ends a connection because pings are too frequent, its keepalive is slowed down
///   for a day (only for gateways made from an [`Endpoint`](tonic::transport::Endpoint)). The reason
///   is often lost with the connection. So if two tunnels in a row break three to five pings after
///   the gateway was last heard, the keepalive is slowed down for half an hour.
///
/// # Logs
///
/// Tunnels that connect and end, and attempts that fail, are logged at level `info`; refusals at
/// `warn`, attempts at `debug`. Metadata, and so credentials, never are.
#[derive(Debug)]
pub struct ReverseTunnelServer {
    shared: Arc<Shared>,
}

impl ReverseTunnelServer {
    /// Begins a server of tunnels to a gateway: an [`Endpoint`](tonic::transport::Endpoint), a
    /// [`Channel`](tonic::transport::Channel), or a [`Gateway`] of any other kind.
    pub fn builder(gateway: impl Into<Gateway>) -> ReverseTunnelServerBuilder {
        ReverseTunnelServerBuilder::new(gateway.into())
    }

    fn new(settings: Settings, gateways: Vec<Gateway>, calls: CallService) -> Self {
        Self {
            shared: Shared::new(settings, gateways, Purpose::Serve(calls)),
        }
    }

    /// Watches and stops the server from outside.
    pub fn handle(&self) -> LinksHandle {
        LinksHandle::new(self.shared.clone())
    }

    /// Opens one tunnel, to the first gateway, and serves its calls until it has ended. Returns
    /// how it ended. Dropping the future closes the tunnel.
    ///
    /// May be called again, also while another call of it goes on: each is a tunnel.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]: the tunnel could not be opened.
    pub async fn serve(&self) -> Result<EndReason, TunnelError> {
        let attempt = Attempt {
            gateway: self.shared.gateways[0].name.clone(),
            number: 1,
            last_error: None,
        };
        let live = self.shared.open(0, None, attempt).await?;
        let _close = CloseOnDrop(&live.tunnel);
        let reason = live.tunnel.gone().await;
        self.shared.learn(&live, Some(&reason));
        Ok(reason)
    }

    /// Keeps the tunnels up until the server is told to stop by its
    /// [`handle`](Self::handle), and serves their calls. Returns how it was told.
    ///
    /// Everything but the tunnels' own tasks runs within this future; dropping it closes all
    /// tunnels.
    pub async fn run(self) -> StopReason {
        self.shared.run(self.shared.links()).await
    }
}

impl Drop for ReverseTunnelServer {
    fn drop(&mut self) {
        self.shared.close(StopReason::Dropped);
        self.shared.all_stopped();
    }
}

struct CloseOnDrop<'a>(&'a Tunnel);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::transport::Endpoint;

    /// Devices run in tasks.
    #[test]
    fn what_runs_is_send() {
        fn is_send(_: impl Send) {}
        let builder = || ReverseTunnelServer::builder(Endpoint::from_static("http://nowhere"));
        let server = builder().build();
        let handle = server.handle();
        is_send(server.serve());
        is_send(async move { server.serve().await });
        is_send(async move { builder().serve().await });
        is_send(async move { builder().build().run().await });
        is_send(async move { builder().run().await });
        is_send(async move {
            let _ = handle.wait_connected().await;
            handle.drain(std::time::Duration::ZERO).await;
        });
    }
}
