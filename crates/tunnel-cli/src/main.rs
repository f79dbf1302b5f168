//! `tunnel`: any gRPC server behind NAT, by name, with no code.

mod access;
mod age;
mod connect;
mod enroll;
mod identity;
mod listen;
mod private_file;
mod reload;
mod settings;
mod signals;
mod systemd;
mod tcp;

mod admin;
mod agent;
mod call;
mod certs;
mod forward;
mod gateway;
mod healthy;
mod manual;
mod token;
mod tunnels;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Any gRPC server behind NAT, by name, with no code.
///
/// `tunnel gateway` runs where everyone can dial it, and `tunnel agent` beside a gRPC server that nobody can dial.
/// Ordinary gRPC clients call that server through the gateway, by its key.
#[derive(Debug, Parser)]
#[command(name = "tunnel", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log lines of this level: error, warn, info, debug or trace, or a filter as of RUST_LOG.
    #[arg(long, global = true, env = "TUNNEL_LOG", default_value = "info")]
    log: String,
    /// Log lines as JSON.
    #[arg(long, global = true, env = "TUNNEL_LOG_JSON")]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Gateway(Box<gateway::Args>),
    Agent(agent::Args),
    Call(call::Args),
    Forward(forward::Args),
    #[command(flatten)]
    Admin(admin::Command),
    Certs(certs::Args),
    Token(token::Args),
    Healthy(healthy::Args),
    Completions(manual::Completions),
    Man(manual::Man),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = log_as(&cli).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(run(cli.command))
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_as(cli: &Cli) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&cli.log)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would panic if nobody reads the standard error any more.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match cli.log_json {
        true => lines.json().init(),
        false => lines.init(),
    }
    Ok(())
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Gateway(args) => gateway::run(*args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Call(args) => call::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Admin(command) => admin::run(command).await,
        Command::Certs(args) => certs::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Healthy(args) => healthy::run(args).await,
        Command::Completions(args) => manual::completions(Cli::command(), &args),
        Command::Man(args) => manual::man(Cli::command(), &args),
    }
}
