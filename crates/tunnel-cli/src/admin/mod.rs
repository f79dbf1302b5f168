//! The commands of operators, which use the admin API.

pub(crate) mod api;
mod client;
mod control;
pub(crate) mod human;
mod list;
mod stats;
mod tap;
mod top;
mod watch;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;

/// The commands of the admin API.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::ListArgs),
    Top(top::TopArgs),
    Watch(watch::WatchArgs),
    Tap(tap::TapArgs),
    Stats(stats::StatsArgs),
    Kick(control::KickArgs),
    Deny(control::DenyArgs),
    Allow(control::AllowArgs),
    Denied(control::DeniedArgs),
    Drain(control::DrainArgs),
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    run_to(command, &mut std::io::stdout()).await
}

/// Runs a command that writes its output here.
pub(crate) async fn run_to(command: Command, out: &mut impl Write) -> Result<ExitCode> {
    let result = match command {
        Command::List(args) => list::list(args, out).await,
        Command::Top(args) => top::top(args, out).await,
        Command::Watch(args) => watch::watch(args, out).await,
        Command::Tap(args) => tap::tap(args, out).await,
        Command::Stats(args) => stats::stats(args, out).await,
        Command::Kick(args) => control::kick(args, out).await,
        Command::Deny(args) => control::deny(args, out).await,
        Command::Allow(args) => control::allow(args, out).await,
        Command::Denied(args) => control::denied(args, out).await,
        Command::Drain(args) => control::drain(args, out).await,
    };
    match result {
        // The reader of the output has stopped, for example `head`.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
