//! A gateway with a place in the fleet.
//!
//! It has a runtime of its own, so that it can be killed within this process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::sleep;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tunnel_fleet::Fleet;
use tunnel_server::{AffinityKey, Opening, TunnelServiceHandler, server_for_tunnels};

use crate::etcd::Engine;

/// The metadata key in which a device names itself.
pub(crate) const DEVICE: &str = "device-id";

/// How long calls in flight may go on when a gateway stops.
const DRAIN: Duration = Duration::from_secs(10);

/// The pause between looks at what has no event.
const LOOK: Duration = Duration::from_millis(20);

/// A gateway that runs.
pub(crate) struct Gateway {
    /// Where devices reach it.
    pub(crate) address: SocketAddr,
    fleet: Fleet,
    handler: TunnelServiceHandler,
    /// `None`: it was killed.
    runtime: Option<Runtime>,
}

impl Gateway {
    /// Starts a gateway that joins the fleet: at an address where it was before, or at a free one.
    pub(crate) async fn start(
        name: &str,
        engine: &Engine,
        address: Option<SocketAddr>,
    ) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (tunnels, hops) = {
            let _runtime = runtime.enter();
            (listen(address)?, listen(None)?)
        };
        let address = tunnels.local_addr()?;

        // The place in the fleet, and a handler of tunnels that tells the fleet of its devices.
        let fleet = Fleet::builder(name)
            .fleet("example")
            .advertise(format!("http://{}", hops.local_addr()?))
            .lease_ttl(Duration::from_secs(2));
        let fleet = engine.give(fleet)?.build();
        let handler = TunnelServiceHandler::builder()
            .affinity_key(|opening: &Opening| opening.metadata_str(DEVICE).map(AffinityKey::from));
        let handler = fleet.watch_tunnels(handler).build();

        // A server for devices, and another one for gateways. In production both have TLS, and the second one lets in
        // gateways alone.
        let for_devices = server_for_tunnels(Server::builder()).add_service(handler.service());
        let for_gateways = server_for_tunnels(Server::builder()).add_service(fleet.hop_service());
        runtime.spawn(for_devices.serve_with_incoming(TcpListenerStream::new(tunnels)));
        runtime.spawn(for_gateways.serve_with_incoming(TcpListenerStream::new(hops)));
        let joining = (fleet.clone(), handler.clone());
        let joined = runtime.spawn(async move { joining.0.join(&joining.1).await });
        joined.await?.context("cannot join the fleet")?;
        Ok(Self {
            address,
            fleet,
            handler,
            runtime: Some(runtime),
        })
    }

    /// `fleet().channel(key)` calls a device, whichever gateway it is at.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Where the calls of this gateway are made. `None`: it was killed.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.runtime.as_ref().map(Runtime::handle)
    }

    /// Ends it at once, as a kill does: nobody is told.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Stops it so that no call is lost.
    pub(crate) async fn stop(mut self) {
        // Until each device has a tunnel elsewhere: those of a gateway that was just restarted come back first.
        while !self.fleet.only_here().is_empty() {
            sleep(LOOK).await;
        }
        // The others prefer other routes from now on, and devices open tunnels elsewhere.
        self.fleet.begin_drain();
        self.handler.drain(DRAIN).await;
        self.fleet.leave().await;
        self.kill();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Listens at an address, or at a free port.
fn listen(address: Option<SocketAddr>) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The address may have connections of the gateway that was there before.
    socket.set_reuseaddr(true)?;
    socket.bind(address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))))?;
    Ok(socket.listen(1024)?)
}
