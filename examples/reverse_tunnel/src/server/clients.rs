//! The clients that have opened a reverse tunnel, one after another.

use std::time::Duration;

use anyhow::Result;
use example_support::caller::Caller;
use example_support::test::echo_service_client::EchoServiceClient;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tunnel_server::{Report, TunnelChannel, TunnelServiceHandler};

use crate::{GRACE, demo};

/// Waits for a client, calls it, closes its tunnel, and waits for the next, until
/// `stopping`. Returns the number of clients whose calls failed.
///
/// It takes one client at a time, so that the log lines of clients do not mix.
pub(crate) async fn call_each(
    handler: &TunnelServiceHandler,
    stopping: &CancellationToken,
) -> Result<usize> {
    let mut failed = 0;
    while let Some(tunnel) = next_tunnel(handler).await {
        info!("✓ Reverse tunnel established");
        info!("--- Making RPC calls to client ---");
        // A reverse tunnel is a channel too.
        let caller = Caller::new(EchoServiceClient::new(tunnel.clone()));
        match demo::run(&caller).await {
            Ok(()) => info!("✓ All calls to client completed successfully!"),
            Err(error) if stopping.is_cancelled() => warn!("Calls were cut short: {error:#}"),
            Err(error) => {
                error!("{error:#}");
                failed += 1;
            }
        }
        close(&tunnel).await;
    }
    Ok(failed)
}

/// The next tunnel that takes calls; `None` when the handler is drained.
async fn next_tunnel(handler: &TunnelServiceHandler) -> Option<TunnelChannel> {
    info!("Waiting for client to connect with reverse tunnel...");
    let any = handler.as_channel();
    loop {
        any.wait_for_ready(Duration::MAX).await.ok()?;
        // `None` if the tunnel has just gone.
        if let Some(tunnel) = handler.all_reverse_tunnels().into_iter().next() {
            return Some(tunnel);
        }
    }
}

/// Drains the tunnel, and waits until it has ended.
async fn close(tunnel: &TunnelChannel) {
    info!("Closing tunnel...");
    let reason = tunnel.drain(GRACE).await;
    info!("✓ Tunnel closed: {}", Report(&reason));
}
