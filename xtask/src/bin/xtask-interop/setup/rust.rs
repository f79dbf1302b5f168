//! The Rust peer and the examples, built by the cargo that runs all this.

use anyhow::{Result, ensure};

use super::{Launch, Places};
use crate::run::{cargo, expect_success};

/// The programs of the examples, which are those of two packages.
const EXAMPLES: &[&str] = &["forward-tunnel", "reverse-tunnel"];

pub(super) fn set_up_peer(places: &Places) -> Result<Option<Launch>> {
    set_up(places, "interop-peer")
}

pub(super) fn set_up_grpc(places: &Places) -> Result<Option<Launch>> {
    set_up(places, "grpc-interop")
}

fn set_up(places: &Places, name: &str) -> Result<Option<Launch>> {
    build(&["--package", name])?;
    let program = places.programs.join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(program.is_file(), "{name} was built, but elsewhere");
    Ok(Some(Launch::of(program)))
}

/// They have no command line in common: there is not one way to start them.
pub(super) fn set_up_examples(_: &Places) -> Result<Option<Launch>> {
    let packages = EXAMPLES.iter().flat_map(|package| ["--package", package]);
    let arguments: Vec<_> = ["--bins"].into_iter().chain(packages).collect();
    build(&arguments)?;
    Ok(None)
}

fn build(arguments: &[&str]) -> Result<()> {
    expect_success(cargo().arg("build").args(arguments))
}
