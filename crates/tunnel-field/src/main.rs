//! Tests that need real proxies, real processes or much time.
//!
//! - `proxies`: the rows of `docs/FIELD.md` that need HAProxy and nginx (`cargo xtask field`).
//! - `soak`: calls for minutes or hours while links and processes fail (`cargo xtask soak`).
//!
//! `proxies` starts this program again with the other subcommands: these processes can be frozen
//! and killed.

mod ends;
mod progress;
mod proxies;
mod soak;

use std::alloc::System;
use std::process::ExitCode;

use anyhow::Result;
use cap::Cap;
use clap::{Parser, Subcommand};

/// The allocator. It counts allocated memory, for `soak`.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Tests tunnels behind real proxies, and under faults.
#[derive(Parser)]
#[command(name = "tunnel-field")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the rows that need HAProxy and nginx.
    Proxies(proxies::Args),
    /// Make calls while links and processes fail; look for lost calls and leaks.
    Soak(soak::Args),
    #[command(flatten)]
    Child(ends::Child),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Proxies(args) => proxies::run(&args).await,
        Command::Soak(args) => soak::run(&args).await,
        Command::Child(child) => ends::run(child).await.map(|()| ExitCode::SUCCESS),
    }
}
