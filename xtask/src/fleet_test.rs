//! `cargo xtask fleet-test`: builds the program `tunnel` and `tunnel-fleet-test`, and runs the latter.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tunnel_process::{CtrlC, cargo, exit_code, expect_success};

/// Run a fleet of gateways, etcd and devices, and break one part after the other under calls.
#[derive(clap::Args)]
// `tunnel-fleet-test` defines the options and prints their help.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let has = |flag| args.args.iter().any(|arg| arg.starts_with(flag));
    // These take long, or measure.
    let release = (has("--simulate") || has("--scale")).then_some("--release");
    if !has("--simulate") {
        let mut build = cargo();
        build.args(["build", "--quiet", "--package", "tunnel-cli"]);
        expect_success(build.args(["--bin", "tunnel"]).args(release))?;
    }
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "tunnel-fleet-test"]);
    command.args(release).arg("--").args(&args.args);
    // `tunnel-fleet-test` handles Ctrl-C, because it has child processes to end.
    let _ctrl_c = CtrlC::watch()?;
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}
