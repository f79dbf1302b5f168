//! What a gateway and an agent of the program `tunnel` cost, beside the same calls without them.
//!
//! `cargo bench -p tunnel-cli --bench gateway -- --help`

mod certificates;
mod devices;
mod fleet;
mod load;
mod programs;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use tonic::transport::Channel;

use certificates::Certificates;
use fleet::Fleet;
use load::{Load, Target};
use programs::Programs;

/// Measures calls through a gateway and an agent, beside direct calls and a TCP tunnel in the same rounds, and a gateway
/// with many tunnels.
#[derive(Parser)]
struct Args {
    /// Rounds that count. One more before them does not.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Tunnels of a gateway with many. They are opened by one process for each 2,500.
    #[arg(long, default_value_t = 10_000)]
    devices: usize,
    /// The program `rathole`, the TCP tunnel to compare with: `cargo install rathole`. Without it there is no such
    /// column.
    #[arg(long, value_name = "PROGRAM")]
    rathole: Option<String>,
    /// The program `etcd`, over which two gateways are a fleet: `apt-get install etcd-server`. Without it there are no rows of
    /// calls by a hop.
    #[arg(long, value_name = "PROGRAM")]
    etcd: Option<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Serve at a free port, print it, and go on until standard input ends.
    #[arg(long, hide = true)]
    serve: bool,
    /// Open this number of tunnels to a gateway, print "open", and go on until standard input ends.
    #[arg(long, hide = true, value_names = ["COUNT", "FIRST", "ADDRESS", "CERTIFICATES"], num_args = 3..=4)]
    open: Vec<String>,
}

/// The callers of the measurement of rates.
const CALLERS: usize = 64;

/// The tunnels that one process opens, so that it stays within common limits of descriptors.
const DEVICES_OF_PROCESS: usize = 2_500;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if args.serve {
        return devices::serve().await;
    }
    if let [count, first, address, certificates @ ..] = &args.open[..] {
        let certificates = certificates.first().map(Path::new);
        return devices::open(
            count.parse()?,
            first.parse()?,
            address.parse()?,
            certificates,
        )
        .await;
    }
    let directory = tempfile::tempdir()?;
    let certificates = Certificates::create(directory.path())?;
    compare(&args, &certificates).await?;
    for with_tls in [false, true] {
        many(&args, with_tls.then_some(&certificates)).await?;
    }
    Ok(())
}

/// A way from the client to the server.
struct Variant {
    name: &'static str,
    target: Target,
}

async fn compare(args: &Args, certificates: &Certificates) -> Result<()> {
    let programs = Programs;
    let (_server, address) = programs.server().await?;
    let direct = Channel::from_shared(format!("http://{address}"))?;
    let mut variants = vec![Variant {
        name: "direct",
        target: Target::to(direct.connect().await?, None),
    }];
    let rathole = match &args.rathole {
        Some(program) => Some(programs.rathole(program, address).await?),
        None => None,
    };
    if let Some((_processes, at)) = &rathole {
        let channel = programs::connect_until(&format!("http://{at}")).await?;
        variants.push(Variant {
            name: "rathole (TCP)",
            target: Target::to(channel, None),
        });
    }
    let plain = programs.gateway(None).await?;
    let _agent = programs.agent(&plain, "device", address, None).await?;
    variants.push(Variant {
        name: "gateway and agent",
        target: Target::to(plain.channel(None).await?, Some("device")),
    });
    let secure = programs.gateway(Some(certificates)).await?;
    let _secure_agent = programs
        .agent(&secure, "device", address, Some(certificates))
        .await?;
    variants.push(Variant {
        name: "the same with mTLS",
        target: Target::to(secure.channel(Some(certificates)).await?, Some("device")),
    });

    // The agent is at the second gateway of a fleet, the client at the first.
    let mut fleets = Vec::new();
    for (name, certificates) in [
        ("by a hop", None),
        ("by a hop with mTLS everywhere", Some(certificates)),
    ] {
        let Some(program) = &args.etcd else { continue };
        let fleet = Fleet::start(&programs, program, certificates).await?;
        let agent = programs
            .agent(&fleet.far, "device", address, certificates)
            .await?;
        let target = Target::to(fleet.near.channel(certificates).await?, Some("device"));
        programs::answers(&target).await?;
        variants.push(Variant { name, target });
        fleets.push((fleet, agent));
    }

    let time = Duration::from_secs_f64(args.seconds);
    let mut rounds: Vec<Vec<[Load; 2]>> = Vec::new();
    for round in 0..=args.rounds {
        let mut row = Vec::new();
        for variant in &variants {
            let one = load::run(&variant.target, 1, time).await?;
            let many = load::run(&variant.target, CALLERS, time).await?;
            eprintln!(
                "round {round}, {}: p50 {:.0} µs; {CALLERS} callers {:.0}/s, p99 {:.0} µs",
                variant.name,
                one.p50 * 1e6,
                many.rate,
                many.p99 * 1e6
            );
            row.push([one, many]);
        }
        // The first is a warm-up.
        if round > 0 {
            rounds.push(row);
        }
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "path",
        "p50 of one caller, µs",
        "÷ direct",
        &format!("calls/s of {CALLERS} callers"),
        "÷ direct",
        "p99 of these, µs",
    ]);
    for (i, variant) in variants.iter().enumerate() {
        let of =
            |value: &dyn Fn(&[Load; 2]) -> f64| median(rounds.iter().map(|row| value(&row[i])));
        let ratio = |value: &dyn Fn(&[Load; 2]) -> f64| {
            let ratios: Vec<f64> = rounds
                .iter()
                .map(|row| value(&row[i]) / value(&row[0]))
                .collect();
            let (low, high) = range(&ratios);
            format!("{:.2} ({low:.2}–{high:.2})", median(ratios.into_iter()))
        };
        table.add_row([
            variant.name.to_owned(),
            format!("{:.0}", of(&|loads| loads[0].p50 * 1e6)),
            ratio(&|loads| loads[0].p50),
            format!("{:.0}", of(&|loads| loads[1].rate)),
            ratio(&|loads| loads[1].rate),
            format!("{:.0}", of(&|loads| loads[1].p99 * 1e6)),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// A gateway with many tunnels: what they cost, and calls spread over them.
async fn many(args: &Args, certificates: Option<&Certificates>) -> Result<()> {
    let what = match certificates {
        Some(_) => "mTLS",
        None => "plaintext",
    };
    let programs = Programs;
    let gateway = programs.gateway(certificates).await?;
    // Memory of the first connection and of the allocator does not count.
    let _first = programs
        .devices(1, args.devices, gateway.agents, certificates)
        .await?;
    let before = gateway.memory()?;
    let began = Instant::now();
    let mut devices = Vec::new();
    for first in (0..args.devices).step_by(DEVICES_OF_PROCESS) {
        let count = DEVICES_OF_PROCESS.min(args.devices - first);
        devices.push(
            programs
                .devices(count, first, gateway.agents, certificates)
                .await?,
        );
    }
    let opened = began.elapsed();
    let idle = gateway.memory()?.saturating_sub(before) / args.devices.max(1);
    let cpu = gateway.cpu_of(Duration::from_secs(10)).await?;
    let target = Target::spread(gateway.channel(certificates).await?, args.devices);
    let time = Duration::from_secs_f64(args.seconds * 2.0);
    load::run(&target, CALLERS, time).await?;
    let load = load::run(&target, CALLERS, time).await?;
    println!(
        "{what}, {} tunnels: opened in {:.1} s; {:.1} kB of the gateway for each; {:.1} % of a core when idle; {CALLERS} \
         callers over all of them: {:.0} calls/s, p50 {:.0} µs, p99 {:.0} µs; {:.1} kB for each after that",
        args.devices,
        opened.as_secs_f64(),
        idle as f64 / 1e3,
        cpu * 100.0,
        load.rate,
        load.p50 * 1e6,
        load.p99 * 1e6,
        (gateway.memory()?.saturating_sub(before) / args.devices.max(1)) as f64 / 1e3,
    );
    Ok(())
}

fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
