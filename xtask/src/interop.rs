//! `cargo xtask interop`: builds `xtask-interop`, which runs the matrix, and runs it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tunnel_process::{CtrlC, cargo, exit_code};

/// Run the tests with the Go and Python implementations of the protocol.
#[derive(clap::Args)]
// `xtask-interop` defines the options and prints their help.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `cargo xtask interop --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "xtask"]);
    command.args(["--features", "interop", "--bin", "xtask-interop", "--"]);
    command.args(&args.args);
    // `xtask-interop` handles Ctrl-C, because it has child processes to end.
    let _ctrl_c = CtrlC::watch()?;
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}
