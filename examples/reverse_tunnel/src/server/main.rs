//! The gateway of the reverse tunnel example.
//!
//! A tonic server that calls the clients that dialled it. Its only service accepts
//! tunnels. The echo service that it calls runs on the clients, which cannot be
//! dialled.

mod clients;
mod demo;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use example_support::address::{self, Address};
use example_support::listen::Listener;
use example_support::signal::Shutdown;
use example_support::{exit, log, serve};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::info;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// The time that calls in flight have when a tunnel is drained.
const GRACE: Duration = Duration::from_secs(10);

/// Calls the echo service of every client that opens a reverse tunnel.
#[derive(Parser)]
#[command(name = "reverse-tunnel-server")]
struct Args {
    /// The address to listen on. Port 0 means any free port.
    #[arg(long, value_name = "HOST:PORT", default_value = address::DEFAULT)]
    address: Address,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::init(module_path!());
    exit::code(run(&args).await)
}

async fn run(args: &Args) -> Result<()> {
    info!("Starting Reverse Tunnel Server...");
    let handler = TunnelServiceHandler::builder().build();
    let server = server_for_tunnels(Server::builder()).add_service(handler.service());

    let stop = Shutdown::watch().context("signals cannot be watched")?;
    let listener = Listener::bind(&args.address).await?;
    info!("✓ Server listening on port {}", listener.port());

    let stopping = CancellationToken::new();
    let serving = async {
        serve::until_stopped(&handler, server, listener, stop, stopping.clone(), GRACE).await?;
        // Calls in flight are cut off.
        handler.drain(Duration::ZERO).await;
        Ok(())
    };
    let calling = clients::call_each(&handler, &stopping);
    let ((), failed) = tokio::try_join!(serving, calling)?;
    ensure!(failed == 0, "the calls to {failed} of the clients failed");
    Ok(())
}
