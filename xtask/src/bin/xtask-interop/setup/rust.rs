//! The Rust peer and the examples, built with cargo.

use anyhow::{Result, ensure};
use tunnel_process::{cargo, expect_success};

use super::{Launch, Places};

/// The packages that contain the programs of the examples.
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

/// Builds the examples. Returns no [`Launch`], because each of them is a program of its own.
pub(super) fn set_up_examples(_: &Places) -> Result<Option<Launch>> {
    let packages = EXAMPLES.iter().flat_map(|package| ["--package", package]);
    let arguments: Vec<_> = ["--bins"].into_iter().chain(packages).collect();
    build(&arguments)?;
    Ok(None)
}

fn build(arguments: &[&str]) -> Result<()> {
    expect_success(cargo().arg("build").args(arguments))
}
