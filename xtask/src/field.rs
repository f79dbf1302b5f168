//! `cargo xtask field` and `cargo xtask soak`: build the program that does both, and run it.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::ctrl_c::{CtrlC, exit_code};
use crate::run::cargo;

/// What the program is given.
#[derive(clap::Args)]
// The program has the options, and the help for them.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs one of the program's subcommands.
pub(crate) fn run(subcommand: &str, args: &Args) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "tunnel-field", "--"]);
    command.arg(subcommand).args(&args.args);
    // A Ctrl-C is the program's to handle, which then has something to end.
    let _ctrl_c = CtrlC::watch()?;
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}
