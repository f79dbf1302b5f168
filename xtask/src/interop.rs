//! `cargo xtask interop`: builds and runs the program of the crate `tunnel-interop`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tunnel_process::{CtrlC, cargo, exit_code};

/// Run the tests with the Go and Python implementations of the protocol.
#[derive(clap::Args)]
// `tunnel-interop` defines the options and prints their help.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `cargo xtask interop --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "tunnel-interop", "--"]);
    command.args(&args.args);
    // Its child processes end with it.
    let _ctrl_c = CtrlC::watch()?;
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}
