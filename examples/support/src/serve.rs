//! A server that runs until somebody wants it to end.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tonic::transport::server::Router;
use tracing::{info, warn};

use crate::listen::Listener;
use crate::signal::Shutdown;

/// How long connections may take to close once the tunnels are drained.
const CLOSING: Duration = Duration::from_secs(2);

/// Serves until `stop` asks for an end, lets `drain` end the tunnels in order, and
/// stops. Asked a second time, nobody wants to wait for that.
///
/// # Errors
///
/// What the server failed with.
pub async fn until_stopped(
    server: Router,
    listener: Listener,
    mut stop: Shutdown,
    drain: impl Future<Output = ()>,
) -> Result<()> {
    let (drained, closing) = oneshot::channel();
    let shutdown = async {
        stop.requested().await;
        drain_or_cut_off(drain, &mut stop).await;
        // Received below, unless the server has failed already.
        let _ = drained.send(());
    };
    let serving = server.serve_with_incoming_shutdown(listener.incoming(), shutdown);
    tokio::select! {
        served = serving => served.context("the server failed")?,
        () = overdue(closing) => warn!("Closing connections that their clients keep open"),
    }
    info!("✓ Server stopped");
    Ok(())
}

async fn drain_or_cut_off(drain: impl Future<Output = ()>, stop: &mut Shutdown) {
    info!("Shutting down: draining tunnels...");
    tokio::select! {
        // Begun in any case, so that nobody goes on as before.
        biased;
        () = drain => info!("✓ Tunnels drained"),
        () = stop.requested() => warn!("Asked again: calls in flight are cut off"),
    }
}

/// Waits until the server should long have stopped.
async fn overdue(closing: oneshot::Receiver<()>) {
    match closing.await {
        Ok(()) => tokio::time::sleep(CLOSING).await,
        Err(_) => std::future::pending().await,
    }
}
