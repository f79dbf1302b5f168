//! A server that runs until a signal.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
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
    let shutdown = Shutdown::on(stopping.clone().cancelled_owned()).within(grace);
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
