//! The instructions and allocations of the state machine. A busy machine does not change these
//! figures, so they show regressions that are too small for noisy times.
//!
//! ```text
//! cargo bench -p tunnel-core --bench instructions [-- MODE] [FILTER]
//! ```
//!
//! | mode | |
//! |---|---|
//! | none | prints the figures, and how they differ from those recorded |
//! | `--record` | writes them to `benches/instructions.toml`, all of them |
//! | `--check` | fails if a scenario takes more than 3 % more instructions than recorded, or any more allocations; and if a shape of frame takes more than four times the instructions of ordinary calls for each byte |
//!
//! Each scenario runs twice in a separate process under `valgrind --tool=callgrind`, with N and with
//! 2 N rounds after a warm-up. The difference is the cost of N rounds. `support/scenario.rs` has the
//! scenarios and their units. Allocations are counted in this process, without valgrind; growing a
//! block counts as one.
//!
//! The figures depend on the compiler, and a little on the C library. So the compiler and the host
//! are recorded, and other compilers are not compared. The ratios between shapes of frames are
//! always checked. The profiles of the longer runs stay in the target directory, for
//! `callgrind_annotate --inclusive=yes`.

use std::env;
use std::process::ExitCode;

#[path = "../support/mod.rs"]
mod support;

mod allocations;
mod callgrind;
mod figures;
mod table;

use figures::{Compiler, Figures, Recorded};
use support::scenario::{self, Scenario};
use support::shapes;

/// The mode.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Show,
    Record,
    Check,
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [flag, name, rounds] = &args[..]
        && flag == callgrind::CHILD
    {
        return callgrind::child(name, rounds);
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let mode = match (has("--record"), has("--check")) {
        (true, _) => Mode::Record,
        (false, true) => Mode::Check,
        // Under `cargo test` there is nothing to do.
        (false, false) if !has("--bench") => return ExitCode::SUCCESS,
        (false, false) => Mode::Show,
    };
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let chosen: Vec<_> = scenario::all()
        .filter(|s| filters.is_empty() || filters.iter().any(|&f| s.name.contains(f.as_str())))
        .collect();
    match run(mode, &chosen) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode, chosen: &[&'static Scenario]) -> Result<ExitCode, String> {
    if chosen.is_empty() {
        return Err("no scenario has such a name".into());
    }
    if mode == Mode::Record && chosen.len() != scenario::all().count() {
        return Err("only all scenarios together can be recorded: leave out the filter".into());
    }
    let has_valgrind = callgrind::is_installed();
    if !has_valgrind {
        println!("Counting instructions needs valgrind, which is not installed: only allocations");
        println!("are counted. (apt-get install valgrind, dnf install valgrind, …)");
        if mode != Mode::Show {
            return Err("--record and --check need valgrind".into());
        }
    }
    let compiler = Compiler::present();
    let recorded = match mode {
        Mode::Record => None,
        Mode::Show | Mode::Check => Some(Recorded::load()?),
    };
    let comparable = recorded
        .as_ref()
        .is_some_and(|r| r.is_of(compiler.as_ref()));

    table::print_head();
    let mut measured = Vec::new();
    let mut worse = Vec::new();
    for scenario in chosen {
        let figures = measure(scenario, has_valgrind)?;
        let before = recorded.as_ref().and_then(|r| r.of(scenario));
        table::print_row(scenario, &figures, before);
        if mode == Mode::Check && comparable {
            worse.extend(figures.worse_than(before).map(|how| (scenario.name, how)));
        }
        measured.push((scenario.name, figures));
    }
    println!();
    if has_valgrind {
        println!("profiles: {}/callgrind.*.out", callgrind::DIRECTORY);
    }
    if let Some(recorded) = &recorded
        && !comparable
    {
        println!("note: {}", recorded.difference(&compiler));
    }
    if mode == Mode::Check {
        worse.extend(dear_shapes(&measured));
    }
    if mode == Mode::Record {
        let compiler = compiler.ok_or("`rustc -vV` does not say which compiler this is")?;
        figures::save(&compiler, &measured)?;
        println!("recorded in {}", figures::PATH);
    }
    for (name, how) in &worse {
        println!("WORSE: {name}: {how}");
    }
    Ok(if worse.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("To accept the new figures: --record");
        ExitCode::FAILURE
    })
}

/// The shapes of frames that cost too much for each byte, compared with ordinary ones.
fn dear_shapes(measured: &[(&'static str, Figures)]) -> Vec<(&'static str, String)> {
    let of = |shape: &Scenario| {
        let (_, figures) = measured.iter().find(|(name, _)| *name == shape.name)?;
        figures.instructions
    };
    let Some(ordinary) = of(shapes::ORDINARY) else {
        return Vec::new();
    };
    let ratios = shapes::SHAPES
        .iter()
        .filter_map(|shape| Some((shape.name, of(shape)? / ordinary)));
    let limit = shapes::MOST;
    ratios
        .filter(|(_, ratio)| *ratio > limit)
        .map(|(name, ratio)| {
            (
                name,
                format!("{ratio:.1} times an ordinary byte, more than {limit}"),
            )
        })
        .collect()
}

fn measure(scenario: &'static Scenario, has_valgrind: bool) -> Result<Figures, String> {
    let (allocations, bytes) = allocations::count(scenario);
    let instructions = match has_valgrind {
        true => Some(callgrind::count(scenario)?),
        false => None,
    };
    Ok(Figures {
        instructions,
        allocations,
        bytes,
    })
}
