//! gRPC's own interop cases and grpchan's channel battery, through tunnels:
//! serves their services, and calls them.
//!
//! The Go program in `grpc-go` has the same command line, the same output and the
//! same cases, which there are the originals.

mod cases;
mod options;
mod services;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use interop_peer::options::Command;
use interop_peer::{Suite, call};
use tonic::service::Routes;

use cases::Case;
use options::{Battery, Entry};

/// The generated messages, clients and servers.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::unwrap_used
)]
mod proto {
    pub(crate) mod official {
        include!("generated/grpc.testing.rs");
    }
    pub(crate) mod battery {
        include!("generated/grpchantesting.rs");
    }
}

/// Serves the test services of gRPC and of grpchan through tunnels, and calls them.
#[derive(Parser)]
#[command(name = "grpc-interop")]
struct Options {
    #[command(subcommand)]
    command: Command<GrpcInterop>,
}

/// The services and the cases of gRPC and of grpchan.
#[derive(Debug)]
struct GrpcInterop;

impl Suite for GrpcInterop {
    type Case = Case;
    type Key = Entry;
    type Extra = Battery;

    const CASES: &'static [Case] = cases::ALL;

    fn services() -> Routes {
        services::all()
    }

    async fn run(extra: Battery) -> Result<()> {
        let cases = cases::battery();
        match extra {
            Battery::BatteryForward {
                opening,
                end,
                trial,
            } => call::forward(&end, &opening, &trial, &cases).await,
            Battery::BatteryReverse { end, trial } => call::reverse(&end, &trial, &cases).await,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    interop_peer::run(Options::parse().command).await
}
