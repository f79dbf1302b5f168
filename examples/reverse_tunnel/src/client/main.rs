//! The client of the reverse tunnel example: a device that nobody can dial.
//!
//! It dials the server and serves what the server calls. The echo service is an
//! ordinary one of tonic, added as it would be to tonic's own server.

mod keep_up;
mod once;
mod service;
mod teller;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use example_support::address::{self, Address};
use example_support::signal::Shutdown;
use example_support::test::echo_service_server::EchoServiceServer;
use example_support::{exit, log};
use tonic::transport::Endpoint;
use tracing::{info, warn};
use tunnel_client::{Gateway, Keepalive, LinksHandle, ReverseTunnelServer};

use crate::service::SayingEcho;
use crate::teller::Teller;

/// How long the server may take to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long calls in flight may take once this program is asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// Serves an echo service through a reverse tunnel.
#[derive(Parser)]
#[command(name = "reverse-tunnel-client")]
struct Args {
    /// The server.
    #[arg(long, value_name = "HOST:PORT", default_value = address::DEFAULT)]
    address: Address,

    /// Keep a tunnel up until Ctrl-C: open the next one whenever one has ended or
    /// could not be opened.
    #[arg(long)]
    reconnect: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::init(module_path!());
    exit::code(run(&args).await)
}

async fn run(args: &Args) -> Result<()> {
    let mut stop = Shutdown::watch().context("signals cannot be watched")?;
    let teller = Teller::default();
    let echo = SayingEcho {
        teller: teller.clone(),
    };
    let device = ReverseTunnelServer::builder(gateway(args)?)
        .add_service(EchoServiceServer::new(echo))
        .build();
    info!("Registered Echo service on client");

    let handle = device.handle();
    let mut serving = pin!(async {
        if args.reconnect {
            keep_up::run(device, &teller).await
        } else {
            once::run(&device, &args.address, &teller).await
        }
    });
    tokio::select! {
        ended = &mut serving => ended?,
        () = stop.requested() => shut_down(&handle, &mut stop).await,
    }
    info!("✓ Client stopped");
    Ok(())
}

fn gateway(args: &Args) -> Result<Gateway> {
    let endpoint = Endpoint::from_shared(args.address.url())?.connect_timeout(CONNECT_TIMEOUT);
    let gateway = Gateway::from(endpoint);
    if args.reconnect {
        return Ok(gateway);
    }
    // A server that does not want to be pinged often ends the connection. The next
    // one is pinged less, but without `--reconnect` there is no next one.
    Ok(gateway.keepalive(Keepalive::patient()))
}

/// Lets calls in flight finish. Asked a second time, nobody wants to wait.
async fn shut_down(handle: &LinksHandle, stop: &mut Shutdown) {
    info!("Shutting down: draining tunnel...");
    tokio::select! {
        () = handle.drain(GRACE) => info!("✓ Tunnel drained"),
        () = stop.requested() => {
            warn!("Asked again: calls in flight are cut off");
            handle.close().await;
        }
    }
}
