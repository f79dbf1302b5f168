//! `cargo xtask codegen`: builds the generator and runs it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tunnel_process::{cargo, exit_code};

/// Generate Rust code from the `.proto` files.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a generated file is not up to date.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--package", "xtask", "--features", "codegen"]);
    command.args(["--bin", "xtask-codegen", "--"]);
    if args.check {
        command.arg("--check");
    }
    // The generator prints its own errors.
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}
