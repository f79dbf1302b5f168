//! `cargo xtask lint`: checks format, clippy, sets of features, documentation, dependency trees, imports and
//! the files for a deployment.

use std::time::Instant;

use anyhow::{Result, bail};
use tunnel_process::{cargo, expect_success};

use crate::{circles, core_tree, deployment, features};

/// Check format, clippy, documentation, dependency trees and the files for a deployment.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the checks whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// A check: its name and its function.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("format", format),
    ("clippy", clippy),
    ("sets of features", features::run),
    ("documentation", documentation),
    ("dependency trees", core_tree::run),
    ("imports", circles::run),
    ("deployment", deployment::run),
];

/// Runs every check, even after a failure, so that one run shows all failures.
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen = STEPS.iter().filter(|(name, _)| name.contains(&args.only));
    let failed: Vec<_> = chosen.filter(|step| !passes(step)).collect();
    if failed.is_empty() {
        println!("--- all checks passed");
        return Ok(());
    }
    let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
    bail!("failed: {}", names.join(", "));
}

fn passes((name, check): &Step) -> bool {
    println!("--- {name}");
    let start = Instant::now();
    let result = check();
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(()) => println!("--- {name}: ok ({seconds:.1} s)"),
        Err(error) => println!("--- {name}: FAILED ({seconds:.1} s): {error:#}"),
    }
    result.is_ok()
}

fn format() -> Result<()> {
    expect_success(cargo().args(["fmt", "--all", "--check"]))?;
    // The fuzzing package is a separate workspace. Clippy sees its code through the tests that
    // include it.
    let fuzz = [
        "fmt",
        "--manifest-path",
        "crates/tunnel-core/fuzz/Cargo.toml",
        "--check",
    ];
    expect_success(cargo().args(fuzz))
}

fn clippy() -> Result<()> {
    let mut command = cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--all-features"]);
    command.args(["--", "-D", "warnings"]);
    expect_success(&mut command)
}

fn documentation() -> Result<()> {
    let mut command = cargo();
    command.env("RUSTDOCFLAGS", "-D warnings");
    command.args(["doc", "--workspace", "--no-deps", "--all-features"]);
    expect_success(&mut command)
}
