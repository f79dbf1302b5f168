//! The server of the forward tunnel example.
//!
//! An ordinary tonic server with one more service, which accepts tunnels. The echo
//! service is the same for plain calls and for calls through a tunnel.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use example_support::address::{self, Address};
use example_support::echo::Echo;
use example_support::listen::Listener;
use example_support::signal::Shutdown;
use example_support::test::echo_service_server::EchoServiceServer;
use example_support::{exit, log, serve};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::info;
use tunnel_server::{TunnelServiceHandler, server_for_tunnels};

/// The time that calls in flight have when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// Serves an echo service, directly and through forward tunnels.
#[derive(Parser)]
#[command(name = "forward-tunnel-server")]
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
    info!("Starting Forward Tunnel Server...");
    let handler = TunnelServiceHandler::builder()
        .add_service(EchoServiceServer::new(Echo)) // reachable through tunnels
        .build();
    let server = server_for_tunnels(Server::builder())
        .add_service(handler.service())
        .add_service(EchoServiceServer::new(Echo)); // reachable without one
    info!("Registered Echo service");

    let stop = Shutdown::watch().context("signals cannot be watched")?;
    let listener = Listener::bind(&args.address).await?;
    info!("✓ Server listening on port {}", listener.port());
    info!("Waiting for clients to connect...");
    serve::until_stopped(
        &handler,
        server,
        listener,
        stop,
        CancellationToken::new(),
        GRACE,
    )
    .await
}
