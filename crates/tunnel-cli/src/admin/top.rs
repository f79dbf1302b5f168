//! `tunnel top`: the busiest devices, each second.

mod model;
mod screen;

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use self::model::{HEADER, Model, Snapshot};
use super::client::{AdminArgs, Client, failed};
use super::{api, human};

/// How often the numbers are renewed.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Devices in one request.
const PAGE: i32 = 1000;

/// Show the busiest devices, each second. `q` or Ctrl-C ends it.
///
/// Devices with the most calls a second come first. Rates are those of the last second; SENT and RECEIVED are bytes of
/// messages, as the gateway sees them. Without a terminal a table is printed each second.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only keys that match, for example 'berlin-*'.
    #[arg(long, value_name = "GLOB", default_value = "")]
    filter: String,
    /// End after this number of seconds.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    count: usize,
    /// Without a terminal: at most this number of devices.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(super) async fn top(args: TopArgs, out: &mut impl Write) -> Result<ExitCode> {
    let client = args.admin.client().await?;
    let (sender, mut snapshots) = mpsc::channel(1);
    tokio::spawn(poll(client, args.filter, sender));
    if std::io::stdout().is_terminal() {
        screen::run(snapshots, args.count).await?;
        return Ok(ExitCode::SUCCESS);
    }
    for _ in 0..args.count {
        let Some(snapshot) = snapshots.recv().await else {
            break;
        };
        print(&snapshot.map_err(failed)?, args.limit, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the gateway each second, until nobody reads the answers. The first answer comes after a second, because it has
/// rates.
async fn poll(
    mut client: Client,
    filter: String,
    snapshots: mpsc::Sender<Result<Snapshot, Status>>,
) {
    let mut model = Model::default();
    let mut seconds = tokio::time::interval(INTERVAL);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        seconds.tick().await;
        let answer = tokio::time::timeout(PATIENCE, ask(&mut client, &filter)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::unavailable("the gateway does not answer")));
        let snapshot = answer.map(|(stats, devices)| model.update(stats, &devices, Instant::now()));
        if std::mem::take(&mut is_first) && snapshot.is_ok() {
            continue;
        }
        if snapshots.send(snapshot).await.is_err() {
            return;
        }
    }
}

/// How the gateway is doing, and the devices that are connected.
async fn ask(
    client: &mut Client,
    filter: &str,
) -> Result<(api::StatsResponse, Vec<api::Device>), Status> {
    let mut stats = client.stats(api::StatsRequest {}).await?.into_inner();
    let mut devices = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = api::ListRequest {
            page_size: PAGE,
            page_token,
            filter: filter.to_owned(),
            state: api::State::Connected.into(),
            keys: Vec::new(),
        };
        let page = client.list(request).await?.into_inner();
        devices.extend(page.devices);
        stats.unreachable.extend(page.unreachable);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            stats.unreachable.sort();
            stats.unreachable.dedup();
            return Ok((stats, devices));
        }
    }
}

fn print(snapshot: &Snapshot, limit: usize, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", snapshot.summary())?;
    let mut table = human::table(&snapshot.header(), &HEADER[1..7]);
    for row in snapshot.rows.iter().take(limit) {
        table.add_row(snapshot.cells(row));
    }
    writeln!(out, "{}\n", table.trim_fmt())?;
    out.flush()?;
    Ok(())
}
