//! `cargo xtask test`: runs every test of the workspace, including the doc examples.

use anyhow::Result;
use tunnel_process::{cargo, expect_success};

/// Run all tests, including the doc examples.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments for `cargo test`, for example `-p tunnel-core` or `-- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = cargo();
    // One run shows the failures of all crates, not only of the first.
    command.args(["test", "--no-fail-fast"]);
    if !names_a_package(&args.args) {
        command.arg("--workspace");
    }
    command.args(&args.args);
    expect_success(&mut command)
}

/// Whether the arguments select packages. `--workspace` would override that selection.
fn names_a_package(args: &[String]) -> bool {
    args.iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

#[cfg(test)]
mod tests {
    use super::names_a_package;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn packages_are_recognised_in_cargo_s_own_arguments_only() {
        assert!(names_a_package(&args("--release -p tunnel-core")));
        assert!(names_a_package(&args("--package=tunnel-core")));
        assert!(!names_a_package(&args("--release -- -p")));
        assert!(!names_a_package(&args("")));
    }
}
