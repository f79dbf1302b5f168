//! `cargo xtask bench`: builds the benchmark and runs it.
//!
//! The options are passed on to the benchmark. Two of them take a path there and none here:
//! `--go`, which builds the Go program first, and `--readme`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use tunnel_process::{CtrlC, cargo, exit_code, expect_success, root};

/// Measure tunnels against plain gRPC (see `cargo xtask bench --help`).
#[derive(clap::Args)]
// The benchmark defines the options and prints their help.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `cargo xtask bench --help`; `--go` and `--readme` take no value here.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let args = with_paths(&args.args, build_go)?;
    let mut command = cargo();
    // Paths on the command line are relative to the user's directory, not to the root.
    command.current_dir(std::env::current_dir().context("cannot tell the current directory")?);
    command.args(["run", "--release", "--package", "tunnel-bench"]);
    command
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"));
    command.arg("--").args(args);
    // The benchmark handles Ctrl-C, because it has child processes to end.
    let _ctrl_c = CtrlC::watch()?;
    let status = command.status().context("cannot run cargo")?;
    Ok(exit_code(status).into())
}

/// The options in the form that the benchmark accepts.
fn with_paths(
    args: &[OsString],
    build_go: impl FnOnce() -> Result<PathBuf>,
) -> Result<Vec<OsString>> {
    let mut build_go = Some(build_go);
    let mut full = Vec::new();
    for arg in args {
        full.push(arg.clone());
        if arg == "--readme" {
            full.push(root().join("README.md").into());
        } else if arg == "--go" {
            let build = build_go.take().context("--go can be given only once")?;
            full.push(build()?.into());
        }
    }
    let has_out = |arg: &OsString| arg.to_string_lossy().starts_with("--out");
    if !args.iter().any(has_out) {
        full.push("--out".into());
        full.push(root().join("target/bench").into());
    }
    Ok(full)
}

/// Builds the Go program of the benchmark and returns its path.
fn build_go() -> Result<PathBuf> {
    let module = root().join("crates/tunnel-conformance/peers/go");
    if Command::new("go").arg("version").output().is_err() {
        bail!(
            "--go needs Go, which is not installed: install Go {} or later (https://go.dev/dl)",
            needed(&module)?
        );
    }
    let program = root().join("target/interop/bin/bench-go");
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    let mut build = Command::new("go");
    build.current_dir(&module);
    build.args(["build", "-o"]).arg(&program).arg("./bench");
    expect_success(&mut build)?;
    Ok(program)
}

/// The oldest version of Go that a module can be built with.
fn needed(module: &Path) -> Result<String> {
    let go_mod = fs::read_to_string(module.join("go.mod"));
    let go_mod = go_mod.context("cannot read go.mod of the Go programs")?;
    let version = go_mod.lines().find_map(|line| line.strip_prefix("go "));
    let version = version.context("go.mod of the Go programs names no version")?;
    Ok(version.trim().trim_end_matches(".0").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(args: &[&str]) -> Vec<String> {
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let full = with_paths(&args, || Ok("built".into())).expect("they are options");
        let full = full
            .into_iter()
            .map(|arg| arg.into_string().expect("it is UTF-8"));
        full.collect()
    }

    #[test]
    fn options_of_the_benchmark_are_passed_on_as_they_are() {
        let args = ["--quick", "--only", "unary 16 B", "--out", "here"];
        assert_eq!(full(&args), args);
    }

    #[test]
    fn what_is_written_is_in_the_target_directory_of_the_workspace() {
        let out = root().join("target/bench");
        assert_eq!(full(&[]), ["--out", out.to_str().expect("it is UTF-8")]);
    }

    #[test]
    fn the_readme_and_the_go_program_get_their_paths() {
        let readme = root().join("README.md");
        let args = full(&["--go", "--readme", "--out=x"]);
        let readme = readme.to_str().expect("it is UTF-8");
        assert_eq!(args, ["--go", "built", "--readme", readme, "--out=x"]);
    }

    #[test]
    fn a_go_program_that_cannot_be_built_ends_it() {
        let error = with_paths(&["--go".into()], || bail!("no Go")).expect_err("it was refused");
        assert_eq!(error.to_string(), "no Go");
    }
}
