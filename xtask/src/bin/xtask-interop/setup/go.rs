//! The Go peer. `go build` decides what has to be rebuilt.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tunnel_process::expect_success;

use super::{Launch, Places, major_and_minor, version_of};

/// Fails if Go is missing or too old.
pub(super) fn check(places: &Places) -> Result<()> {
    let go_mod = places.peers.join("go/go.mod");
    let go_mod = fs::read_to_string(go_mod).context("cannot read go.mod of the Go peer")?;
    let needed = needed(&go_mod).context("go.mod of the Go peer names no version of Go")?;
    let install = format!("install Go {needed} or later (https://go.dev/dl)");
    let Some(installed) = version_of("go", "version") else {
        bail!("go is not installed: {install}");
    };
    if major_and_minor(&installed) < major_and_minor(needed) {
        bail!("{installed} is too old: {install}");
    }
    Ok(())
}

/// The minimum Go version in a `go.mod`.
fn needed(go_mod: &str) -> Option<&str> {
    let version = go_mod.lines().find_map(|line| line.strip_prefix("go "))?;
    let version = version.trim();
    Some(version.strip_suffix(".0").unwrap_or(version))
}

pub(super) fn set_up_peer(places: &Places) -> Result<Option<Launch>> {
    build(places, "go", "peer-go")
}

pub(super) fn set_up_grpc(places: &Places) -> Result<Option<Launch>> {
    build(places, "grpc-go", "grpc-peer")
}

fn build(places: &Places, module: &str, name: &str) -> Result<Option<Launch>> {
    let program = places.out.join("bin").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    let mut build = Command::new("go");
    build.current_dir(places.peers.join(module));
    build.args(["build", "-o"]).arg(&program).arg(".");
    expect_success(&mut build)?;
    Ok(Some(Launch::of(program)))
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn the_version_of_go_is_that_of_the_module() {
        let go_mod = "module peer\n\ngo 1.24.0\n\nrequire example.org/x v1.2.3\n";
        assert_eq!(needed(go_mod), Some("1.24"));
        assert_eq!(needed("module peer\n"), None);
    }
}
