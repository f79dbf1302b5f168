//! The Rust peer: serves the test services through tunnels, and calls them.
//!
//! The Go and the Python peer beside it have the same command line, the same
//! output and the same cases. This one is `tunnel-client` and `tunnel-server` as
//! a user has them.

mod cases;
mod entry;
mod handler;
mod pattern;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use example_support::echo::Echo;
use example_support::test::echo_service_server::EchoServiceServer;
use interop_peer::Suite;
use interop_peer::options::{Command, Nothing};
use tonic::service::Routes;

use cases::Case;
use handler::interop;
use proto::Entry;

/// The generated messages, client and server of the interop service.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::unwrap_used
)]
mod proto {
    include!("generated/tunnel.interop.v1.rs");
}

/// Serves the test services through tunnels, and calls them.
#[derive(Parser)]
#[command(name = "peer")]
struct Options {
    #[command(subcommand)]
    command: Command<Peer>,
}

/// The services and the cases that the peers in other languages have, too.
struct Peer;

impl Suite for Peer {
    type Case = Case;
    type Key = Entry;
    type Extra = Nothing;

    const CASES: &'static [Case] = cases::ALL;

    fn services() -> Routes {
        Routes::new(interop()).add_service(EchoServiceServer::new(Echo))
    }

    async fn run(extra: Nothing) -> Result<()> {
        match extra {}
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    interop_peer::run(Options::parse().command).await
}
