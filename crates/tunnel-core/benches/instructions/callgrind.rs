//! Counts the instructions of a scenario with valgrind.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::support::scenario::{self, Scenario};

/// The argument of a process that does the work of one scenario.
pub(crate) const CHILD: &str = "--child";

/// The directory of the profiles.
pub(crate) const DIRECTORY: &str = env!("CARGO_TARGET_TMPDIR");

/// Makes glibc copy with vector instructions. valgrind counts a repeating copy instruction once for
/// each byte, which would dominate with large payloads. Other C libraries ignore this.
const PLAIN_COPIES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM");

pub(crate) fn is_installed() -> bool {
    let mut version = Command::new("valgrind");
    version.arg("--version");
    version.stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Instructions for one unit of a scenario.
pub(crate) fn count(scenario: &Scenario) -> Result<f64, String> {
    let once = total(scenario, scenario.rounds)?;
    let twice = total(scenario, 2 * scenario.rounds)?;
    let units = scenario.rounds * scenario.units();
    Ok(twice.saturating_sub(once) as f64 / units as f64)
}

/// The instructions of a process that does this many rounds of a scenario.
fn total(scenario: &Scenario, rounds: usize) -> Result<u64, String> {
    let profile = profile_of(scenario);
    let program = env::current_exe().map_err(|e| format!("this program has no path: {e}"))?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .env(PLAIN_COPIES.0, PLAIN_COPIES.1)
        .args([CHILD, scenario.name, &rounds.to_string()])
        .output()
        .map_err(|e| format!("valgrind does not start: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // "==PID== Collected : 123456"
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("valgrind failed on {scenario}:\n{said}")),
    }
}

fn profile_of(scenario: &Scenario) -> PathBuf {
    let words = scenario.name.replace(',', "").replace(' ', "-");
    Path::new(DIRECTORY).join(format!("callgrind.{words}.out"))
}

/// Does the warm-up of a scenario and this many rounds.
pub(crate) fn child(name: &str, rounds: &str) -> ExitCode {
    let scenario = scenario::all().find(|s| s.name == name);
    let (Some(scenario), Ok(rounds)) = (scenario, rounds.parse::<usize>()) else {
        eprintln!("no scenario {name} with {rounds} rounds");
        return ExitCode::FAILURE;
    };
    let mut round = scenario.set_up();
    for _ in 0..scenario.rounds + rounds {
        round();
    }
    ExitCode::SUCCESS
}
