//! The interop matrix behind `cargo xtask interop`.

mod bridge;
mod cases;
mod examples;
mod expected;
mod grpc;
mod matrix;
mod outcome;
mod path;
mod plain;
mod programs;
mod progress;
mod report;
mod run;
mod tunnel;
mod versions;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;

use expected::Expectations;
use matrix::{Only, Pair, Peer};
use outcome::{Counts, PairOutcome};
use programs::Programs;
use progress::Progress;
use report::Report;

/// Run the tests with the Go and Python implementations of the protocol.
///
/// Between Rust and each of the two, in both roles, the conformance suite runs over
/// forward and reverse tunnels, with revision one and revision zero of the protocol,
/// and once over the bridge of the other implementation without a tunnel. Go's own
/// interop client and the channel tests of grpchan run between Rust and Go, and Rust
/// and Rust. The examples run with both. Clients and servers of all three also run with
/// a gateway and an agent of the program `tunnel` between them. Needs Go and Python.
///
/// The known failures of the Go and Python implementations, with their reasons, are
/// in crates/tunnel-conformance/peers/expected-failures.toml. A listed case must fail
/// with the listed symptom; a different failure or a pass makes this command fail.
/// A case that is listed as one that hangs is not run, see --hanging.
/// Reports are written to target/interop: report.md, summary.md, report.json, and
/// what the programs print in logs/.
#[derive(Parser)]
#[command(name = "cargo xtask interop", bin_name = "cargo xtask interop")]
struct Args {
    /// Run only the pairs that have this peer at one end.
    only: Option<Only>,

    /// Run only the cases whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,

    /// Run only the pairs whose description contains this text, such as "Rust → Go, reverse".
    #[arg(long, value_name = "TEXT")]
    pair: Option<String>,

    /// Run the Go and Python implementations with each other too. This does not test
    /// the Rust side; it shows which of the expected failures are theirs alone.
    #[arg(long)]
    foreign: bool,

    /// Run also the cases that are expected to hang. Each takes its timeout of 15 seconds.
    #[arg(long)]
    hanging: bool,

    /// List the pairs and cases, and run none.
    #[arg(long)]
    list: bool,

    /// Build the programs and run none.
    #[arg(long, conflicts_with = "list")]
    setup: bool,
}

fn main() -> ExitCode {
    match run_matrix(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the matrix. Returns whether every case ended as expected.
fn run_matrix(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let expectations = Expectations::load(&matrix::all_pairs())?;
    let wanted = wanted(args, &expectations);
    ensure!(!wanted.is_empty(), "no pair has such a case");
    if args.list {
        list(&wanted);
        return Ok(true);
    }
    let programs = Programs::find()?;
    let peers = ends(&wanted);
    programs.build(&peers)?;
    if args.setup {
        return Ok(true);
    }
    let programs = Arc::new(programs);
    let outcomes = run_pairs(&wanted, &programs, &expectations);
    let report = Report {
        limited_to: limits(args),
        seconds: start.elapsed().as_secs_f64(),
        totals: Counts::sum(outcomes.iter().map(PairOutcome::counts)),
        versions: versions::of(&peers, &programs)?,
        pairs: outcomes,
    };
    report.write(&programs.out)?;
    show(&report, &programs);
    Ok(report.totals.unexpected == 0)
}

/// The pairs of a run, with their cases.
fn wanted(args: &Args, expectations: &Expectations) -> Vec<(Pair, Vec<String>)> {
    let pairs = match args.foreign {
        true => matrix::all_pairs(),
        false => matrix::pairs(),
    };
    let contains = |text: &Option<String>, name: &str| {
        text.as_ref()
            .is_none_or(|text| name.contains(text.as_str()))
    };
    let pairs = pairs
        .into_iter()
        .filter(|pair| pair.is_wanted(args.only) && contains(&args.pair, &pair.to_string()));
    let with_cases = pairs.map(|pair| {
        let mut cases = cases::cases(&pair);
        cases.retain(|case| {
            let expected = expectations.of(&pair, case);
            let hangs = expected.iter().any(|entry| entry.hangs);
            contains(&args.case, case) && (args.hanging || !hangs)
        });
        (pair, cases)
    });
    with_cases.filter(|(_, cases)| !cases.is_empty()).collect()
}

/// The peers that are an end of any of the pairs.
fn ends(pairs: &[(Pair, Vec<String>)]) -> Vec<Peer> {
    let ends = pairs.iter();
    let mut ends: Vec<_> = ends
        .flat_map(|(pair, _)| [pair.caller, pair.handler])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn limits(args: &Args) -> Option<String> {
    let only = args.only.map(|only| format!("pairs with {only:?}"));
    let pair = args
        .pair
        .as_ref()
        .map(|pair| format!("pairs like {pair:?}"));
    let case = args
        .case
        .as_ref()
        .map(|case| format!("cases like {case:?}"));
    let limits: Vec<_> = [only, pair, case].into_iter().flatten().collect();
    (!limits.is_empty()).then(|| limits.join(" and "))
}

fn list(pairs: &[(Pair, Vec<String>)]) {
    for (pair, cases) in pairs {
        println!("{pair}");
        for case in cases {
            println!("  {case}");
        }
    }
}

/// Runs one pair after another. The cases of a pair run a few at a time.
fn run_pairs(
    pairs: &[(Pair, Vec<String>)],
    programs: &Arc<Programs>,
    expectations: &Expectations,
) -> Vec<PairOutcome> {
    run::record_panics();
    let mut progress = Progress::of(pairs.len());
    let mut outcomes = Vec::new();
    for (pair, cases) in pairs {
        progress.begin(pair, cases.len());
        let start = Instant::now();
        let verdicts = run::run(*pair, cases, programs, |ended| {
            progress.show(ended, cases.len());
        });
        let seconds = start.elapsed().as_secs_f64();
        let outcome = PairOutcome::of(*pair, seconds, cases, verdicts, expectations);
        progress.end(&outcome);
        outcomes.push(outcome);
    }
    outcomes
}

fn show(report: &Report, programs: &Programs) {
    println!("\n{}\n{}\n", report.summary(), report.legend());
    for line in versions::describe(&report.versions) {
        println!("{line}");
    }
    for complaint in report.complaints() {
        println!("UNEXPECTED: {complaint}");
    }
    let (counts, seconds) = (report.totals.describe(), report.seconds);
    let out = programs.out.display();
    println!("\n{counts}, in {seconds:.0} s; reports: {out}");
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, wanted};
    use crate::expected::Expectations;
    use crate::matrix::Direction;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_run_can_be_limited_by_peer_pair_and_case() {
        let args = Args::parse_from([
            "interop",
            "go",
            "--pair",
            "Go → Rust, rev",
            "--case",
            "unary_s",
        ]);
        let wanted = wanted(&args, &Expectations::default());
        assert!(!wanted.is_empty());
        for (pair, cases) in wanted {
            assert_eq!(pair.direction, Direction::Reverse);
            assert!(
                cases.iter().all(|case| case.contains("unary_s")),
                "{cases:?}"
            );
        }
    }
}
