//! `cargo xtask field` and `cargo xtask soak`: build `tunnel-field` and run it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tunnel_process::{CtrlC, cargo, exit_code};

/// The arguments for `tunnel-field`.
#[derive(clap::Args)]
// `tunnel-field` defines the options and prints their help.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs a subcommand of `tunnel-field`.
pub(crate) fn run(subcommand: &str, args: &Args) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "tunnel-field", "--"]);
    command.arg(subcommand).args(&args.args);
    // `tunnel-field` handles Ctrl-C, because it has child processes to end.
    let _ctrl_c = CtrlC::watch()?;
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}
