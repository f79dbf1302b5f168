//! Reverse tunnels: this side dials and serves the calls.

mod builder;

use std::sync::Arc;

use tunnel_core::EndReason;
use tunnel_tonic::{CallService, Tunnel, TunnelError};

pub use builder::ReverseTunnelServerBuilder;

use crate::Gateway;
use crate::links::{Attempt, LinksHandle, Purpose, Settings, Shared, StopReason};

/// Serves calls that come through tunnels which this side opens: a device behind NAT or a
/// firewall, reached from its gateways with ordinary clients.
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
/// # One tunnel, or tunnels for ever
///
/// [`serve`](Self::serve) opens one tunnel, serves its calls, and says why it ended.
/// [`run`](Self::run) keeps tunnels up: one *link* for each of
/// [`tunnels_per_gateway`](ReverseTunnelServerBuilder::tunnels_per_gateway) to each gateway.
///
/// # The life of a link
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
/// - *Connected* means that the gateway has accepted the tunnel. Calls can come from then on.
/// - Between attempts the link waits as [`Backoff`](crate::Backoff) says. Refusals that will not
///   change by themselves (UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT, UNIMPLEMENTED)
///   are retried at its slow cap, shown as `refused` in [`LinkState::BackingOff`](crate::LinkState::BackingOff), and logged as
///   warnings. It makes no difference whether the gateway refused the tunnel or ended it later
///   with such a status.
/// - When the gateway tells the tunnel to drain, calls in flight go on in it and the link opens
///   its replacement. Where there are other gateways, the next of them that is not known to be
///   away gets a *stand-in* at once ([`LinkStatus::stand_in`](crate::LinkStatus::stand_in)), and the own gateway is dialled
///   with backoff; when it has accepted, the stand-in is drained. Where there is but one gateway
///   it is dialled at once: behind a load balancer that leads to another instance. A gateway that
///   drains one young tunnel after the other is dialled with backoff.
/// - A connection that the gateway ended because of too many pings slows the gateway's keepalive
///   down for a day, where the gateway is made of an [`Endpoint`](tonic::transport::Endpoint).
///   Such a server's reason is often lost with the connection. So the second time in a row that
///   a tunnel breaks just when such servers break them, three to five pings after they were last
///   heard, is taken for it, for half an hour.
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
