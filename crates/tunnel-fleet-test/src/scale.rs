//! Many devices at three gateways, one of which is killed: what their return costs, beside what the simulation says.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::devices::DeviceHost;
use crate::etcd::Etcd;
use crate::gateway::{self, Gateway};
use crate::progress::Progress;
use crate::simulate::{Herd, Scenario, simulate};
use crate::web;

const GATEWAYS: usize = 3;

/// The tunnels that one process with devices holds, by its limit on open files.
const TUNNELS_OF_HOST: usize = 8000;

/// The time between looks, and those of which the peaks are counted.
const LOOK: Duration = Duration::from_millis(100);
const WINDOW: Duration = Duration::from_secs(1);

/// How long until each tunnel was told the spread for all of them: gateways renew it each minute.
const TOLD: Duration = Duration::from_secs(70);

/// After this time the metrics of a gateway show all transactions that were made.
const RECORDED: Duration = Duration::from_secs(5);

/// How long all devices may take to have all tunnels.
const PATIENCE: Duration = Duration::from_secs(600);

/// The label of the tunnels of devices: hops are forward tunnels.
const REVERSE: &str = "direction=\"reverse\"";

/// Ticks of the processor time of a process in a second, as Linux shows it.
const TICKS: f64 = 100.0;

/// What is measured.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// The program `tunnel`.
    pub(crate) tunnel: &'a Path,
    /// The directory for logs and data.
    pub(crate) directory: &'a Path,
    pub(crate) devices: usize,
    /// The gateways that each device has a tunnel to.
    pub(crate) tunnels: usize,
    /// How long to wait for the spread to be told, if not as long as it takes.
    pub(crate) seconds: Option<u64>,
    /// What the simulation beside it needs.
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

struct Stage {
    etcd: Etcd,
    gateways: Vec<Gateway>,
    hosts: Vec<DeviceHost>,
    progress: Progress,
}

/// What all devices and gateways have counted up to a moment.
#[derive(Clone, Copy, Default)]
struct Count {
    at: Duration,
    open: usize,
    attempts: usize,
    opened: usize,
    refused: usize,
    published: usize,
}

/// Processor time of the survivors.
struct Cpu {
    used: Duration,
    /// What they would have used in this time without the return.
    idle: Duration,
}

/// Measures, and returns a table.
pub(crate) async fn run(settings: Settings<'_>) -> Result<Table> {
    let mut stage = Stage::start(settings).await?;
    let all = settings.devices * settings.tunnels;
    let start = stage.watch(Count::default(), all).await?;
    let told = settings
        .seconds
        .map_or(TOLD, |seconds| TOLD.min(Duration::from_secs(seconds)));
    stage.progress.at("gateways tell the spread");
    tokio::time::sleep(told).await;

    let lost = stage.open_at(0).await?;
    let mut victim = stage.gateways.remove(0);
    let idle = stage.idle().await?;
    let before = stage.count().await?;
    let (start_of_return, cpu) = (Instant::now(), stage.cpu()?);
    victim.kill()?;
    let back = stage.watch(before, all).await?;
    let cpu = Cpu {
        used: stage.cpu()?.saturating_sub(cpu),
        idle: start_of_return.elapsed().mul_f64(idle),
    };
    stage.progress.end();
    victim.note();
    stage.note();

    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([""].into_iter().chain(Herd::COLUMNS));
    let start = measured(&start, all, None);
    table.add_row(
        ["measured: the first start".to_owned()]
            .into_iter()
            .chain(start),
    );
    let name = format!("measured: a gateway with {lost} tunnels killed");
    table.add_row([name].into_iter().chain(measured(&back, lost, Some(cpu))));
    let simulated = simulate(&Scenario {
        devices: settings.devices,
        tunnels: settings.tunnels,
        gateways: GATEWAYS,
        lost: 1,
        rate: settings.rate,
        max_openings: Some(100 * std::thread::available_parallelism()?.get()),
        told: told == TOLD,
        tls: false,
        seed: settings.seed,
    });
    let name = format!("simulated: the same with {} lost", simulated.lost);
    table.add_row([name].into_iter().chain(simulated.cells()));
    Ok(table)
}

impl Stage {
    async fn start(settings: Settings<'_>) -> Result<Self> {
        let progress = Progress::of(1);
        progress.row("scale");
        let etcd = Etcd::start(settings.directory, 1).await?;
        let nodes = etcd.addresses();
        let starts = (0..GATEWAYS).map(|number| {
            Gateway::start(gateway::Plan {
                name: format!("g{number}"),
                fleet: "scale",
                program: settings.tunnel,
                etcd: &nodes,
                exclusive: "no",
                logs: settings.directory,
                log: "warn",
                // All devices come from one address.
                more: &["--max-tunnels-of-address", "1000000"],
            })
        });
        let gateways = futures::future::try_join_all(starts).await?;
        let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.agents).collect();
        let each = (TUNNELS_OF_HOST / settings.tunnels).max(1);
        let mut hosts = Vec::new();
        for first in (0..settings.devices).step_by(each) {
            let count = each.min(settings.devices - first);
            let mut host = DeviceHost::start()?;
            host.crowd(first, count, settings.tunnels, &addresses)
                .await?;
            hosts.push(host);
        }
        Ok(Self {
            etcd,
            gateways,
            hosts,
            progress,
        })
    }

    /// Counts until this number of tunnels is open, and more have been opened than before.
    async fn watch(&mut self, before: Count, all: usize) -> Result<Vec<Count>> {
        let start = Instant::now();
        let mut counts = vec![before];
        loop {
            let mut count = self.count().await?;
            count.at = start.elapsed();
            let open = count.open;
            self.progress
                .at(format!("{open} of {all} tunnels are open"));
            // After a kill, devices have to notice it first.
            if open >= all && count.opened > before.opened {
                tokio::time::sleep(RECORDED).await;
                count.published = self.count().await?.published;
                counts.push(count);
                return Ok(counts);
            }
            counts.push(count);
            ensure!(
                start.elapsed() < PATIENCE,
                "{open} of {all} tunnels are open after {PATIENCE:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The cores that the gateways use when nothing happens, but for the looks.
    async fn idle(&mut self) -> Result<f64> {
        let (start, before) = (Instant::now(), self.cpu()?);
        while start.elapsed() < RECORDED {
            self.count().await?;
            tokio::time::sleep(LOOK).await;
        }
        let used = self.cpu()?.saturating_sub(before);
        Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
    }

    async fn count(&mut self) -> Result<Count> {
        let mut count = Count::default();
        for host in &mut self.hosts {
            let (open, attempts) = host.crowded().await?;
            count.open += open;
            count.attempts += attempts;
        }
        for gateway in &self.gateways {
            let metrics = metrics(gateway).await?;
            count.opened += sum(&metrics, "tunnel_openings", &[REVERSE, "\"opened\""]);
            count.refused += sum(
                &metrics,
                "tunnel_openings",
                &[REVERSE, "\"max_openings_at_once\""],
            );
            count.published += sum(&metrics, "tunnel_fleet_publishes_total", &[]);
        }
        Ok(count)
    }

    /// The tunnels that are open at a gateway.
    async fn open_at(&self, gateway: usize) -> Result<usize> {
        let metrics = metrics(&self.gateways[gateway]).await?;
        Ok(sum(&metrics, "tunnel_open", &[REVERSE]))
    }

    /// The processor time of the gateways so far.
    fn cpu(&self) -> Result<Duration> {
        let ids = self.gateways.iter().filter_map(Gateway::id);
        ids.map(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            ticks(&stat).context("no processor time in /proc")
        })
        .map(|ticks| Ok(Duration::from_secs_f64(ticks? / TICKS)))
        .sum()
    }

    fn note(&mut self) {
        self.etcd.note();
        for gateway in &mut self.gateways {
            gateway.note();
        }
    }
}

async fn metrics(gateway: &Gateway) -> Result<String> {
    let (code, body) = web::ask(gateway.http, "GET", "/metrics", "").await?;
    ensure!(code == 200, "no metrics: {code}");
    Ok(body)
}

/// The sum of a metric's values, of the lines with all these labels.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> usize {
    let has_all = |line: &&str| labels.iter().all(|label| line.contains(label));
    let lines = metrics.lines().filter(has_all);
    let values = lines.filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then_some(())?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    values.sum::<f64>() as usize
}

/// User and system time, after the name of the program, which may contain anything.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

/// The cells of a row.
fn measured(counts: &[Count], all: usize, cpu: Option<Cpu>) -> [String; Herd::COLUMNS.len()] {
    let first = counts.first().copied().unwrap_or_default();
    let last = counts.last().copied().unwrap_or_default();
    let back = |part: usize| {
        let enough = |count: &&Count| (count.opened - first.opened) * 100 >= all * part;
        let at = counts.iter().find(enough).map_or(last.at, |count| count.at);
        format!("{:.1} s", at.as_secs_f64())
    };
    let attempts = last.attempts - first.attempts;
    [
        peak(counts, |count| count.attempts).to_string(),
        peak(counts, |count| count.opened).to_string(),
        format!("{:.2}", attempts as f64 / all.max(1) as f64),
        (last.refused - first.refused).to_string(),
        String::new(),
        back(99),
        format!("{:.1} s", last.at.as_secs_f64()),
        String::new(),
        cpu.map_or(String::new(), |cpu| {
            let (used, idle) = (cpu.used.as_secs_f64(), cpu.idle.as_secs_f64());
            format!("{used:.2} s, of it idle {idle:.2} s")
        }),
        (last.published - first.published).to_string(),
    ]
}

/// The most that a number grows in any second.
fn peak(counts: &[Count], number: impl Fn(&Count) -> usize) -> usize {
    let grown = counts.iter().enumerate().map(|(first, from)| {
        let within = counts[first..]
            .iter()
            .take_while(|to| to.at - from.at <= WINDOW);
        within
            .last()
            .map_or(0, |to| number(to).saturating_sub(number(from)))
    });
    grown.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_own_lines_alone() {
        let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 7\na_total 9\n";
        assert_eq!(sum(text, "a", &[]), 5);
        assert_eq!(sum(text, "a", &["x=\"2\""]), 3);
        assert_eq!(sum(text, "ab", &[]), 7);
    }

    #[test]
    fn the_processor_time_stands_after_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat), Some(300.0));
    }

    #[test]
    fn the_peak_is_that_of_any_second() {
        let count = |millis, open| Count {
            at: Duration::from_millis(millis),
            open,
            ..Count::default()
        };
        let counts = [
            count(0, 0),
            count(900, 10),
            count(1500, 90),
            count(2600, 100),
        ];
        assert_eq!(peak(&counts, |count| count.open), 80);
    }
}
