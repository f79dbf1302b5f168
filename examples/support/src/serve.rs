//! Servers: one that runs until a signal, and one that runs as long as its program.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, TcpIncoming};
use tracing::{info, warn};
use tunnel_server::{Shutdown, TunnelServiceHandler};

use crate::listen::Listener;
use crate::signal;

/// Serves until `stop` is signalled. Then cancels `stopping` and lets calls in flight go on for
/// `grace`. A second signal cuts them off.
///
/// # Errors
///
/// The server's error.
pub async fn until_stopped(
    handler: &TunnelServiceHandler,
    server: Router,
    listener: Listener,
    mut stop: signal::Shutdown,
    stopping: CancellationToken,
    grace: Duration,
) -> Result<()> {
    let shutdown = Shutdown::on(stopping.clone().cancelled_owned()).timeout(grace);
    let serving = handler.serve(server, listener.incoming(), shutdown);
    let asked_twice = async {
        stop.requested().await;
        info!("Shutting down: draining tunnels...");
        stopping.cancel();
        stop.requested().await;
        warn!("Second signal: cutting off calls in flight");
        handler.drain(Duration::ZERO).await;
    };
    tokio::select! {
        served = serving => served.context("the server failed")?,
        () = asked_twice => {}
    }
    info!("✓ Server stopped");
    Ok(())
}

/// Serves on a free port of the loopback interface for as long as the program runs, and returns the
/// address.
///
/// # Errors
///
/// If no port can be listened on.
pub async fn on_loopback(server: Router) -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let incoming = TcpIncoming::bind(address)
        .context("cannot listen")?
        .with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            warn!("the server failed: {error}");
        }
    });
    Ok(address)
}
