//! `cargo xtask fuzz`: searches for inputs that break an invariant of `tunnel-core`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tunnel_process::{cargo, expect_success, root};

/// The directory of the fuzzing package, relative to the workspace root.
const PACKAGE: &str = "crates/tunnel-core/fuzz";

/// The instructions for installing the fuzzing tools.
const INSTALL: &str = "cargo-fuzz is missing; it is installed by: cargo install cargo-fuzz --locked\n\
    (it builds libFuzzer, so a C++ compiler is needed too; the stable toolchain will do)";

/// The time limit for one input, in seconds.
const TIMEOUT: u32 = 10;

/// Fuzz the codec, the framing and the state machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The target. Default: all targets, one after another.
    target: Option<String>,

    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let targets = targets(&root().join(PACKAGE))?;
    let chosen: Vec<_> = match &args.target {
        Some(target) if targets.contains(target) => vec![target],
        Some(target) => bail!("no target {target}; there are: {}", targets.join(", ")),
        None => targets.iter().collect(),
    };
    if !has_cargo_fuzz() {
        bail!("{INSTALL}");
    }
    for target in chosen {
        println!("--- {target}: {} s", args.seconds);
        let corpus = root().join(PACKAGE).join("corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let mut command = fuzz(target, args.seconds);
        expect_success(&mut command).with_context(|| {
            format!(
                "{target} found a failing input, or could not be built; \
                 {PACKAGE}/README.md says what to do with a finding"
            )
        })?;
    }
    Ok(())
}

/// The names of the targets. Each target is a file.
fn targets(package: &Path) -> Result<Vec<String>> {
    let folder = package.join("fuzz_targets");
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let (Some("rs"), Some(name)) = (
            path.extension().and_then(|e| e.to_str()),
            path.file_stem().and_then(|s| s.to_str()),
        ) {
            targets.push(name.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

fn has_cargo_fuzz() -> bool {
    let mut command = cargo();
    command.args(["fuzz", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The command that runs one target. New inputs are written to its corpus; the seeds in the
/// repository are only read.
fn fuzz(target: &str, seconds: u32) -> Command {
    let folder = |kind: &str| format!("{PACKAGE}/{kind}/{target}");
    let mut command = cargo();
    command.args(["fuzz", "run", "--fuzz-dir", PACKAGE]);
    // Safe code needs no sanitizer, and without one the stable toolchain is enough.
    command.args(["--sanitizer", "none", target]);
    command.arg(folder("corpus"));
    let kept = ["seeds", "found"].map(folder);
    command.args(kept.iter().filter(|path| root().join(path).is_dir()));
    command.arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={TIMEOUT}"));
    command.arg("-print_final_stats=1");
    command
}

#[cfg(test)]
mod tests {
    use super::{PACKAGE, fuzz, targets};
    use tunnel_process::root;

    #[test]
    fn every_target_has_a_file_and_inputs_that_are_checked_in() {
        let package = root().join(PACKAGE);
        let targets = targets(&package).expect("the folder is there");
        let expected = ["connection", "frame_parse", "frame_roundtrip", "framing"];
        assert_eq!(targets, expected);
        for target in targets {
            assert!(package.join("seeds").join(target).is_dir());
        }
    }

    #[test]
    fn only_the_first_corpus_is_written_to() {
        let command = fuzz("framing", 5);
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let target = args
            .iter()
            .position(|arg| arg == "framing")
            .expect("the target");
        assert_eq!(args[target + 1], format!("{PACKAGE}/corpus/framing"));
        assert_eq!(args[target + 2], format!("{PACKAGE}/seeds/framing"));
        assert!(args.contains(&"-max_total_time=5".into()));
    }
}
