//! The interop matrix behind `cargo xtask interop`.
//!
//! The peers are three programs with the same command line: one in Rust, one with the Go library
//! and one with the Python package. Each can be the caller or the handler of tunnels.
//! [`setup`] builds them, [`matrix`] lists the pairs, and [`run_pair`] runs one pair and collects
//! the verdict of each case. [`expected`] reads the known failures of the foreign peers,
//! [`outcome`] compares verdicts with them, and [`report`] writes the results.

mod expected;
mod lines;
mod matrix;
mod outcome;
mod program;
mod progress;
mod report;
mod run_pair;
mod setup;
mod start;
mod table;
mod versions;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use tunnel_process::{CtrlC, root};

use expected::Expectations;
use matrix::{Cases, Family, Only, Pair, Peer};
use outcome::{Counts, PairOutcome};
use progress::Progress;
use report::Report;
use setup::{Places, Programs};

/// Run the tests with the Go and Python implementations of the protocol.
///
/// Every pair of programs runs all cases over forward and reverse tunnels, with
/// revision one and revision zero of the protocol: Rust with Rust, Rust with Go
/// and with Python in both roles, the examples with Go and with Python, and Go
/// with Go as the baseline. Needs Go and Python.
///
/// The known failures of the Go and Python programs, with their reasons, are in
/// crates/tunnel-conformance/peers/expected-failures.toml. A listed case must
/// fail with the listed symptom; a different failure or a pass makes this
/// command fail. Reports are written to target/interop: report.md, summary.md,
/// report.json, and the output of the programs in logs/.
#[derive(Parser)]
#[command(name = "cargo xtask interop", bin_name = "cargo xtask interop")]
struct Args {
    /// Run only the pairs that have this peer at one end.
    only: Option<Only>,

    /// Run only this case.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,

    /// Run the Go and Python programs with each other too. This does not test the
    /// Rust side; it checks that the expected failures are still correct.
    #[arg(long)]
    foreign: bool,

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
    let pairs = wanted_pairs(args);
    let peers = if args.list {
        vec![Peer::Rust, Peer::GrpcRust]
    } else {
        ends(&pairs)
    };
    let places = Places::find()?;
    let programs = Programs::set_up(&places, &peers)?;
    let known = programs.cases()?;
    let cases = wanted_cases(&known, args.case.as_deref())?;
    if args.setup {
        return Ok(true);
    }
    if args.list {
        list(&pairs, &cases);
        return Ok(true);
    }
    let all: Vec<_> = known.values().flatten().cloned().collect();
    let expectations = Expectations::load(root(), &matrix::all_pairs(), &all)?;
    let outcomes = run_pairs(&pairs, &cases, &programs, &places, &expectations)?;
    let report = Report {
        limited_to: limits(args),
        seconds: start.elapsed().as_secs_f64(),
        totals: Counts::sum(outcomes.iter().map(PairOutcome::counts)),
        versions: versions::of(&peers, &places)?,
        pairs: outcomes,
    };
    report.write(&places.out)?;
    show(&report, &places);
    Ok(report.totals.unexpected == 0)
}

fn wanted_pairs(args: &Args) -> Vec<Pair> {
    let mut pairs = match args.foreign {
        true => matrix::all_pairs(),
        false => matrix::pairs(),
    };
    pairs.retain(|pair| pair.is_wanted(args.only));
    pairs
}

/// The peers that are an end of any of the pairs.
fn ends(pairs: &[Pair]) -> Vec<Peer> {
    let mut ends: Vec<_> = pairs
        .iter()
        .flat_map(|pair| [pair.caller, pair.handler])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn wanted_cases(known: &Cases, wanted: Option<&str>) -> Result<Cases> {
    let Some(wanted) = wanted else {
        return Ok(known.clone());
    };
    let mut cases = known.clone();
    cases
        .values_mut()
        .for_each(|cases| cases.retain(|case| case == wanted));
    if cases.values().all(Vec::is_empty) {
        let names: Vec<_> = known.values().flatten().map(String::as_str).collect();
        bail!("there is no case {wanted}, only: {}", names.join(", "));
    }
    Ok(cases)
}

fn limits(args: &Args) -> Option<String> {
    let only = args.only.map(|only| format!("pairs with {only:?}"));
    let case = args.case.as_ref().map(|case| format!("the case {case}"));
    let limits: Vec<_> = only.into_iter().chain(case).collect();
    (!limits.is_empty()).then(|| limits.join(" and "))
}

fn list(pairs: &[Pair], cases: &Cases) {
    println!("\npairs, with the caller first:");
    for pair in pairs {
        println!("  {pair}");
    }
    for (family, cases) in cases {
        println!("\n{}:", title(*family));
        for case in cases {
            println!("  {case}");
        }
    }
}

fn title(family: Family) -> &'static str {
    match family {
        Family::Tunnels => "cases, of which the examples know echo and echo-error",
        Family::Grpc => "gRPC's own cases, and the channel battery",
    }
}

/// Runs one pair after another: cases measure time, so pairs must not slow each other down.
fn run_pairs(
    pairs: &[Pair],
    cases: &Cases,
    programs: &Programs,
    places: &Places,
    expectations: &Expectations,
) -> Result<Vec<PairOutcome>> {
    let logs = places.out.join("logs");
    fs::create_dir_all(&logs)?;
    let ctrl_c = CtrlC::watch()?;
    let with_cases = pairs.iter().map(|pair| (pair, pair.cases(cases)));
    let with_cases: Vec<_> = with_cases.filter(|(_, cases)| !cases.is_empty()).collect();
    ensure!(!with_cases.is_empty(), "no pair has such a case");
    println!();
    let mut progress = Progress::of(with_cases.len());
    let mut outcomes = Vec::new();
    for (pair, cases) in with_cases {
        progress.begin(pair, cases.len());
        let heard = |ended| progress.heard(ended, cases.len());
        let log = logs.join(pair.file_stem()).with_extension("log");
        let ran = run_pair::run(pair, &cases, programs, &log, &ctrl_c, heard)?;
        let outcome = PairOutcome::of(*pair, &cases, ran, expectations);
        progress.end(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn show(report: &Report, places: &Places) {
    println!("\n{}", report.summary().text());
    println!("{}\n", report.legend());
    for line in versions::describe(&report.versions) {
        println!("{line}");
    }
    for outcome in &report.pairs {
        let complaints = outcome.complaints();
        if !complaints.is_empty() {
            println!("\nUNEXPECTED: {}", outcome.pair);
        }
        for complaint in complaints {
            println!("  {complaint}");
        }
    }
    let (counts, seconds) = (report.totals.describe(), report.seconds);
    println!(
        "\n{counts}, in {seconds:.0} s; reports: {}",
        places.out.display()
    );
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Args, ends, wanted_cases};
    use crate::matrix::{Cases, Family, Only, Peer, pairs};

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn only_the_peers_of_the_wanted_pairs_are_set_up() {
        let mut pairs = pairs();
        pairs.retain(|pair| pair.is_wanted(Some(Only::Go)));
        let all = [
            Peer::Rust,
            Peer::Go,
            Peer::Examples,
            Peer::GrpcRust,
            Peer::GrpcGo,
        ];
        assert_eq!(ends(&pairs), all);
    }

    #[test]
    fn an_unknown_case_is_refused_with_those_there_are() {
        let names = ["unary", "echo"].map(str::to_owned).to_vec();
        let known = Cases::from([(Family::Tunnels, names)]);
        let echo = Cases::from([(Family::Tunnels, vec!["echo".to_owned()])]);
        assert_eq!(wanted_cases(&known, Some("echo")).expect("known"), echo);
        assert_eq!(wanted_cases(&known, None).expect("all"), known);
        let error = wanted_cases(&known, Some("icho")).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "there is no case icho, only: unary, echo"
        );
    }
}
