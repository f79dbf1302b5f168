//! Measures forward and reverse tunnels against plain tonic and other transports, all in one run.
//!
//! The program has three roles. The orchestrator ([`orchestrate`]) starts a client and a server
//! process for each variant ([`peer`]) and sends jobs to the clients ([`job`]). Each round measures
//! every variant of a workload, one after another. Ratios are formed within a round, so that noise
//! on the machine affects both sides of a ratio alike ([`report`]).

mod args;
mod carrier;
mod job;
mod link;
mod orchestrate;
mod peer;
mod proto;
mod report;
mod results;
mod targets;
mod variant;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Role};

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match args.role {
            Some(Role::Server { options, dial }) => peer::server(options, dial).await,
            Some(Role::Client { options, connect }) => peer::client(options, connect).await,
            None => orchestrate::run(args.run).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<orchestrate::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
