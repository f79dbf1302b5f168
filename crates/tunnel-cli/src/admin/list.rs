//! `tunnel list`.

use std::collections::BTreeSet;
use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::client::{AdminArgs, failed};
use super::{api, human};

/// Devices in one request.
const PAGE: usize = 200;

/// List the devices: those that are connected, were connected since the gateway started, or are denied. In a fleet:
/// those of all gateways.
///
/// CALLS are those in flight and all. SENT and RECEIVED are bytes of messages, as the gateway sees them; the numbers are
/// sums over the open tunnels of a device. SINCE is how long the device has been in its state. In a fleet GATEWAY is where
/// its tunnels are, and gateways that do not answer within a second are named below.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only keys that match, for example 'berlin-*'.
    #[arg(long, value_name = "GLOB", default_value = "")]
    filter: String,
    /// Only devices in this state.
    #[arg(long)]
    state: Option<StateArg>,
    /// At most this number of devices.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// A line of JSON for each device.
    #[arg(long)]
    json: bool,
}

/// A state of devices.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Connected,
    Draining,
    Away,
    Denied,
}

impl From<StateArg> for api::State {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Connected => Self::Connected,
            StateArg::Draining => Self::Draining,
            StateArg::Away => Self::Away,
            StateArg::Denied => Self::Denied,
        }
    }
}

pub(super) async fn list(args: ListArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let mut devices = Vec::new();
    let mut unreachable = BTreeSet::new();
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut page_token = String::new();
    while left > 0 {
        let request = api::ListRequest {
            page_size: i32::try_from(left.min(PAGE))?,
            page_token,
            filter: args.filter.clone(),
            state: args.state.map_or(0, |state| api::State::from(state).into()),
            keys: Vec::new(),
        };
        let page = client.list(request).await.map_err(failed)?.into_inner();
        left = left.saturating_sub(page.devices.len());
        unreachable.extend(page.unreachable);
        match args.json {
            true => {
                for device in &page.devices {
                    writeln!(out, "{}", api::json("Device", device)?)?;
                }
            }
            false => devices.extend(page.devices),
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let unreachable: Vec<_> = unreachable.into_iter().collect();
    if args.json {
        human::unreachable(&unreachable, &mut stderr())?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}", table(&devices))?;
    if !page_token.is_empty() {
        writeln!(out, "(more)")?;
    }
    human::unreachable(&unreachable, out)?;
    Ok(ExitCode::SUCCESS)
}

/// A table of devices.
fn table(devices: &[api::Device]) -> String {
    let in_fleet = is_in_fleet(devices);
    let gateway = in_fleet.then_some("GATEWAY");
    let header = [
        "KEY", "STATE", "TUNNELS", "CALLS", "SENT", "RECEIVED", "RTT", "SINCE",
    ];
    let header: Vec<_> = header
        .into_iter()
        .chain(gateway)
        .chain(["PEER", "LAST ERROR"])
        .collect();
    let numbers = ["TUNNELS", "CALLS", "SENT", "RECEIVED", "RTT"];
    let mut table = human::table(&header, &numbers);
    for device in devices {
        table.add_row(row(device, in_fleet));
    }
    table.trim_fmt()
}

/// Whether devices are those of a fleet: some tunnel has a gateway with a name.
fn is_in_fleet(devices: &[api::Device]) -> bool {
    let mut tunnels = devices.iter().flat_map(|device| &device.tunnels);
    tunnels.any(|tunnel| !tunnel.gateway.is_empty())
}

/// The gateways of a device, each once.
pub(super) fn gateways(device: &api::Device) -> String {
    let names: BTreeSet<_> = device
        .tunnels
        .iter()
        .map(|tunnel| &*tunnel.gateway)
        .collect();
    let names: Vec<_> = names.into_iter().collect();
    human::clean(&names.join(", "))
}

/// The cells of a device.
fn row(device: &api::Device, in_fleet: bool) -> Vec<String> {
    let sum = Sum::of(device);
    let tunnels = &device.tunnels;
    let since = match device.state() {
        api::State::Denied => device.denial.as_ref().and_then(|denial| denial.since),
        api::State::Away => device.last_seen,
        _ => tunnels.first().and_then(|tunnel| tunnel.opened_at),
    };
    let peers: Vec<_> = tunnels.iter().map(|tunnel| tunnel.peer.as_str()).collect();
    let mut cells = vec![
        human::clean(&device.key),
        device.state().as_str_name().to_lowercase(),
        tunnels.len().to_string(),
        format!("{} / {}", sum.calls_in_flight, sum.calls_total),
        human::bytes(sum.bytes_sent),
        human::bytes(sum.bytes_received),
        sum.round_trip.map(human::round_trip).unwrap_or_default(),
        human::age(since),
    ];
    cells.extend(in_fleet.then(|| gateways(device)));
    cells.extend([human::clean(&peers.join(", ")), last_error(device)]);
    cells
}

/// The last error and how long ago it was.
pub(super) fn last_error(device: &api::Device) -> String {
    match device.last_error.is_empty() {
        true => String::new(),
        false => {
            let (age, error) = (human::age(device.last_error_at), &device.last_error);
            format!("{} ({age} ago)", human::clean(error))
        }
    }
}

/// The counters of all tunnels of a device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) calls_in_flight: u64,
    pub(super) calls_total: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// The longest.
    pub(super) round_trip: Option<std::time::Duration>,
}

impl Sum {
    pub(super) fn of(device: &api::Device) -> Self {
        let mut sum = Self::default();
        for stats in device
            .tunnels
            .iter()
            .filter_map(|tunnel| tunnel.stats.as_ref())
        {
            sum.calls_in_flight += stats.calls_in_flight;
            sum.calls_total += stats.calls_total;
            sum.bytes_sent += stats.bytes_sent;
            sum.bytes_received += stats.bytes_received;
            sum.round_trip = sum.round_trip.max(human::duration(stats.round_trip));
        }
        sum
    }
}
