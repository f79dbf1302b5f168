//! The orchestrator: selects the workloads, runs them and reports the results.

mod collect;
mod machine;
mod pair;
mod process;
mod progress;
mod run;
mod workload;
mod workloads;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use chrono::SecondsFormat;

use crate::args::RunArgs;
use crate::report;
use crate::results::{Run, Settings};
use crate::variant::{VARIANTS, Variant};
use pair::Programs;
use run::Plan;
use workload::{RowOf, Workload};
use workloads::Scale;

/// The limit of open files, enough for the workloads with a thousand connections.
const FILES: u64 = 8192;

/// The error of a run that the user stopped.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Measures and reports. If the user stops it, it ends its processes and reports nothing.
pub(crate) async fn run(args: RunArgs) -> Result<()> {
    let settings = settings(&args);
    let workloads = chosen_workloads(&args)?;
    let variants = chosen_variants(&args)?;
    if args.list {
        list(&workloads, &variants);
        return Ok(());
    }
    if !process::tells() {
        eprintln!("this system does not report CPU time and memory of processes: left out");
    }
    // Child processes inherit the limit. If it cannot be raised, connections fail with an error.
    let _ = rlimit::increase_nofile_limit(FILES);
    let began = chrono::Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let plan = Plan {
        workloads,
        variants,
        rounds: settings.rounds as usize,
        programs: programs(&args)?,
    };
    let rows = tokio::select! {
        rows = plan.run() => rows,
        stopped = tokio::signal::ctrl_c() => {
            stopped.context("cannot listen for ctrl-c")?;
            bail!(Interrupted);
        }
    };
    let run = Run {
        format: Run::FORMAT,
        began,
        commit: machine::commit(),
        machine: machine::describe(),
        settings,
        rows,
    };
    hand_on(&args, &run)
}

fn settings(args: &RunArgs) -> Settings {
    let (rounds, millis) = match args.quick {
        true => (3, 300),
        false => (args.rounds, args.millis),
    };
    Settings {
        rounds,
        millis,
        quick: args.quick,
        only: args.only.clone(),
    }
}

fn scale(args: &RunArgs) -> Scale {
    Scale {
        millis: settings(args).millis,
        streams: if args.quick { 10_000 } else { 100_000 },
        long_millis: if args.quick { 2000 } else { 4000 },
    }
}

fn chosen_workloads(args: &RunArgs) -> Result<Vec<Workload>> {
    let all = workloads::all(scale(args));
    let Some(part) = &args.only else {
        return Ok(all);
    };
    let rows = || all.iter().flat_map(Workload::rows);
    let names: String = rows().map(|row| format!("\n  {}", row.name)).collect();
    // "unary 16 B x 1" is the name of a row and also a part of "unary 16 B x 1024".
    let whole = rows().any(|row| row.name == *part);
    let wanted = |row: &RowOf| match whole {
        true => row.name == *part,
        false => row.name.contains(part),
    };
    let chosen: Vec<_> = all.into_iter().filter_map(|w| w.only(wanted)).collect();
    ensure!(
        !chosen.is_empty(),
        "no workload's name contains \"{part}\"; there are:{names}"
    );
    Ok(chosen)
}

fn chosen_variants(args: &RunArgs) -> Result<Vec<Variant>> {
    for name in &args.variants {
        let variant = VARIANTS.iter().find(|v| v.name == name);
        let names = VARIANTS.iter().map(|v| format!("\n  {}", v.name));
        let Some(variant) = variant else {
            bail!(
                "there is no variant \"{name}\"; there are:{}",
                names.collect::<String>()
            )
        };
        ensure!(
            args.go.is_some() || args.list || !variant.needs_go(),
            "the variant \"{name}\" needs --go with the path of the program in Go"
        );
    }
    let wanted = |variant: &&Variant| match args.variants.is_empty() {
        true => args.go.is_some() || args.list || !variant.needs_go(),
        false => args.variants.iter().any(|name| name == variant.name),
    };
    Ok(VARIANTS.iter().filter(wanted).copied().collect())
}

fn programs(args: &RunArgs) -> Result<Programs> {
    if let Some(go) = &args.go {
        ensure!(go.is_file(), "there is no file {}", go.display());
    }
    Ok(Programs {
        rust: std::env::current_exe().context("cannot find this program's own file")?,
        go: args.go.clone(),
    })
}

fn list(workloads: &[Workload], variants: &[Variant]) {
    println!("workloads:");
    for row in workloads.iter().flat_map(Workload::rows) {
        println!("  {}", row.name);
    }
    println!("variants:");
    for variant in variants {
        let note = if variant.needs_go() {
            " (needs --go)"
        } else {
            ""
        };
        println!("  {}{note}", variant.name);
    }
}

/// Prints and writes the results.
fn hand_on(args: &RunArgs, run: &Run) -> Result<()> {
    // Write the files first, so that a closed terminal does not lose the results.
    let files: Vec<PathBuf> = report::write_all(run, &args.out)?;
    report::print(run);
    if let Some(file) = &args.against {
        println!("{}", report::against(run, file)?);
    }
    if let Some(readme) = &args.readme {
        report::readme::update(run, readme)?;
    }
    for file in files {
        println!("written: {}", file.display());
    }
    Ok(())
}
