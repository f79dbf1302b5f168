//! The machine and the commit of a run.

use std::fs;
use std::process::Command;

use crate::results::Machine;

/// Describes this machine, with "unknown" for each part that the system does not report.
pub(super) fn describe() -> Machine {
    let unknown = || "unknown".to_owned();
    Machine {
        cpu: cpu().unwrap_or_else(unknown),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        os: os(),
        rustc: output("rustc", &["--version"]).unwrap_or_else(unknown),
    }
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn os() -> String {
    let name = std::env::consts::OS;
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => format!("{name} {}", release.trim()),
        Err(_) => name.to_owned(),
    }
}

/// The measured commit, marked `-dirty` if files differ from it.
pub(super) fn commit() -> Option<String> {
    let here = env!("CARGO_MANIFEST_DIR");
    let commit = output("git", &["-C", here, "rev-parse", "HEAD"])?;
    let changes = output("git", &["-C", here, "status", "--porcelain"]);
    match changes.is_some_and(|files| !files.is_empty()) {
        true => Some(commit + "-dirty"),
        false => Some(commit),
    }
}

/// The output of a program, if the program exists and succeeds.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
