//! The client of the reverse tunnel example: a device that cannot be dialled.
//!
//! It dials the server and serves the server's calls. The echo service is an ordinary
//! tonic service, added as to tonic's own server.

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

/// The time that calls in flight have when this program stops.
const GRACE: Duration = Duration::from_secs(10);

/// Serves an echo service through a reverse tunnel.
#[derive(Parser)]
#[command(name = "reverse-tunnel-client")]
struct Args {
    /// The server.
    #[arg(long, value_name = "HOST:PORT", default_value = address::DEFAULT)]
    address: Address,

    /// Keep a tunnel up until Ctrl-C: open the next one when one has ended or could not
    /// be opened.
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
    // A server that dislikes frequent pings ends the connection. The next connection is
    // pinged less often, but without `--reconnect` there is no next one.
    Ok(gateway.keepalive(Keepalive::patient()))
}

/// Lets calls in flight finish. A second signal cuts them off.
async fn shut_down(handle: &LinksHandle, stop: &mut Shutdown) {
    info!("Shutting down: draining tunnel...");
    tokio::select! {
        () = handle.drain(GRACE) => info!("✓ Tunnel drained"),
        () = stop.requested() => {
            warn!("Second signal: cutting off calls in flight");
            handle.close().await;
        }
    }
}
