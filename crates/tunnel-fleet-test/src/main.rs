//! A fleet of real processes under faults: etcd, gateways of the program `tunnel`, devices and callers.
//!
//! Each row of the table is a fault ([`rows`]). Callers and devices record what they have made and served, and pure
//! functions compare that with what the fault may cost ([`history`]). Devices run in a few processes of this program.

mod crowd;
mod device;
mod devices;
mod etcd;
mod fleet;
mod forwarder;
mod gateway;
mod haproxy;
mod history;
mod load;
mod owner;
mod program;
mod progress;
mod report;
mod rows;
mod scale;
mod service;
mod simulate;
mod web;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};

use crate::program::append;
use crate::progress::Progress;
use crate::report::{Line, table};
use crate::rows::{ROWS, Row, Stage};
use crate::simulate::Simulation;
use crate::world::{Settings, World};

/// The time limit for a row. A row that takes longer hangs.
const GUARD: Duration = Duration::from_secs(300);

/// Tests a fleet of gateways: real processes on this machine, under faults and calls.
#[derive(Parser)]
#[command(name = "cargo xtask fleet-test", bin_name = "cargo xtask fleet-test")]
struct Options {
    /// Run only the rows whose name contains this text. May be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Shorten faults that last longer than this, for example etcd that is down for 60 s.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The number of devices.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(12..=5_000))]
    devices: u16,
    /// Another version of the program tunnel, for half of the gateways and agents in a row of its own.
    #[arg(long, value_name = "PROGRAM")]
    old: Option<PathBuf>,
    /// The program tunnel. Default: beside this program.
    #[arg(long, value_name = "PROGRAM")]
    tunnel: Option<PathBuf>,
    /// List the rows.
    #[arg(long)]
    list: bool,
    /// Only measure what it costs when a gateway is killed with this number of devices, a simulation beside it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    scale: Option<u32>,
    /// The tunnels of each device, for --scale.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    tunnels: u8,
    /// Only simulate the loss of gateways with these numbers of devices, for example 10000,1000000. Starts nothing.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    simulate: Vec<u32>,
    #[command(flatten)]
    simulation: Simulation,
    #[command(subcommand)]
    child: Option<Child>,
}

#[derive(Subcommand)]
enum Child {
    /// Run devices, as lines on standard input say.
    #[command(hide = true)]
    Devices,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<ExitCode> {
    if let Some(Child::Devices) = options.child {
        device::run().await?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.simulate.is_empty() {
        println!("{}", options.simulation.table(&options.simulate)?);
        return Ok(ExitCode::SUCCESS);
    }
    if options.list {
        for row in ROWS {
            println!("{:<18}{}", row.name, row.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |row: &&Row| {
        let only = &options.only;
        only.is_empty() || only.iter().any(|text| row.name.contains(text.as_str()))
    };
    let rows: Vec<_> = ROWS.iter().filter(wanted).collect();
    ensure!(!rows.is_empty(), "no row has such a name; see --list");
    let tunnel = match options.tunnel {
        Some(tunnel) => tunnel,
        None => std::env::current_exe()?
            .with_file_name("tunnel")
            .with_extension(std::env::consts::EXE_EXTENSION),
    };
    for program in [Some(&tunnel), options.old.as_ref()].into_iter().flatten() {
        ensure!(program.is_file(), "{} does not exist", program.display());
    }
    let directory = tempfile::Builder::new().prefix("fleet-test-").tempdir()?;
    if let Some(devices) = options.scale {
        let measured = scale::run(scale::Settings {
            tunnel: &tunnel,
            directory: directory.path(),
            devices: usize::try_from(devices)?,
            tunnels: options.tunnels.into(),
            seconds: options.seconds,
            rate: options.simulation.rate.into(),
            seed: options.simulation.seed,
        });
        let table = tokio::select! {
            table = measured => table,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        let logs = directory.path().display();
        println!("{}", table.with_context(|| format!("in {logs}"))?);
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings {
        tunnel,
        old: options.old,
        directory: directory.path().to_owned(),
        devices: options.devices.into(),
        seconds: options.seconds,
    };
    let lines = tokio::select! {
        lines = run_rows(&rows, settings) => lines,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    if lines
        .as_ref()
        .is_ok_and(|lines| lines.iter().all(|line| !line.has_failed()))
    {
        println!("{} rows, none failed", rows.len());
        return Ok(ExitCode::SUCCESS);
    }
    let logs = directory.keep();
    let logs = logs.display();
    let lines =
        lines.with_context(|| format!("the fleet did not start; the logs are in {logs}"))?;
    let failed = lines.iter().filter(|line| line.has_failed()).count();
    println!(
        "{} rows, {failed} failed; the logs are in {logs}",
        lines.len()
    );
    Ok(ExitCode::FAILURE)
}

/// Runs the rows one after the other, and prints the table.
async fn run_rows(rows: &[&Row], settings: Settings) -> Result<Vec<Line>> {
    let progress = Progress::of(rows.len());
    progress.row("start");
    let mut world = World::start(settings).await?;
    let mut lines = Vec::new();
    for row in rows {
        progress.row(row.name);
        let line = one(row, &mut world, &progress).await;
        append(&world.directory().join("rows.txt"), &line.text());
        progress.done(&line.text());
        world.note();
        if let Ok(rows::Outcome::Skipped(why)) = &line.result {
            eprintln!("SKIPPED: {}: {why}", row.name);
        }
        lines.push(line);
    }
    progress.end();
    println!("{}", table(&lines));
    Ok(lines)
}

async fn one(row: &Row, world: &mut World, progress: &Progress) -> Line {
    let start = Instant::now();
    let run = async {
        // A row begins with a fleet that is whole, whatever the one before has left.
        world.settle().await.context("the fleet did not recover")?;
        let mut stage = Stage { world, progress };
        (row.run)(&mut stage).await
    };
    let result = tokio::time::timeout(GUARD, run).await;
    Line {
        name: row.name,
        seconds: start.elapsed().as_secs_f64(),
        result: result.unwrap_or_else(|_| bail!("not finished after {} s", GUARD.as_secs())),
    }
}
