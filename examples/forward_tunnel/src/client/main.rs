//! The client of the forward tunnel example.
//!
//! Opens a tunnel and makes calls through it. A tunnel is a channel for the stubs
//! that tonic generates.

mod demo;
mod keep_open;
mod many_calls;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Parser;
use example_support::address::{self, Address};
use example_support::caller::Caller;
use example_support::test::echo_service_client::EchoServiceClient;
use example_support::{exit, log};
use tonic::transport::{Channel, Endpoint};
use tracing::info;
use tunnel_client::{ForwardTunnel, Report, endpoint_for_tunnels};

/// How long the server may take to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls an echo service through a forward tunnel.
#[derive(Parser)]
#[command(name = "forward-tunnel-client")]
struct Args {
    /// The server.
    #[arg(long, value_name = "HOST:PORT", default_value = address::DEFAULT)]
    address: Address,

    /// Make N calls, up to 1,000 of them at the same time.
    #[arg(long, value_name = "N", conflicts_with = "keep_open")]
    calls: Option<NonZeroUsize>,

    /// Keep a tunnel up until Ctrl-C, and make a call at intervals.
    #[arg(long)]
    keep_open: bool,

    /// With --keep-open: end after this many seconds.
    #[arg(long = "for", value_name = "SECONDS", requires = "keep_open")]
    duration: Option<u64>,

    /// With --keep-open: the seconds between two calls.
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "keep_open",
        default_value_t = 1
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::init(module_path!());
    exit::code(run(&args).await)
}

async fn run(args: &Args) -> Result<()> {
    info!("Connecting to server at {}...", args.address);
    if args.keep_open {
        let channel = keep_open::connect(&args.address).await?;
        info!("✓ Forward tunnel established");
        return keep_open::run(channel, args.interval, args.duration).await;
    }
    let channel = connect(&args.address).await?;

    info!("Creating forward tunnel...");
    let tunnel = ForwardTunnel::new(channel).open().await.map_err(|error| {
        anyhow!(
            "cannot open a tunnel to {}: {}",
            args.address,
            Report(&error)
        )
    })?;
    info!("✓ Forward tunnel established");

    info!("--- Making RPC calls through tunnel ---");
    let caller = Caller::new(EchoServiceClient::new(tunnel.clone()));
    if let Some(calls) = args.calls {
        many_calls::run(&caller, calls.get()).await?;
    } else {
        demo::run(&caller).await?;
    }
    info!("✓ All calls completed successfully!");

    info!("Closing tunnel...");
    tunnel.close().await;
    info!("✓ Tunnel closed");
    Ok(())
}

async fn connect(address: &Address) -> Result<Channel> {
    endpoint_for_tunnels(Endpoint::from_shared(address.url())?)
        .connect_timeout(CONNECT_TIMEOUT)
        .connect()
        .await
        .map_err(|error| anyhow!("cannot connect to {address}: {}", exit::root_cause(&error)))
}
