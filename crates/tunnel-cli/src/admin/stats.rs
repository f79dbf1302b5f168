//! `tunnel stats`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::client::{AdminArgs, failed};
use super::{api, human};
use crate::age;

/// Show how the gateway is doing. In a fleet: sums over all gateways, and a line for each.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// A table of the gateways of a fleet.
fn gateways(gateways: &[api::GatewayStats]) -> String {
    let numbers = ["TUNNELS", "CALLS"];
    let header = ["GATEWAY", "ZONE", "VERSION", "STATE", "TUNNELS", "CALLS"];
    let mut table = human::table(&header, &numbers);
    for gateway in gateways {
        let state = match (gateway.reachable, gateway.draining, gateway.ready) {
            (false, ..) => "not reached",
            (true, true, _) => "draining",
            (true, false, true) => "ready",
            (true, false, false) => "not ready",
        };
        let number = |number: u64| match gateway.reachable {
            true => number.to_string(),
            false => "?".to_owned(),
        };
        table.add_row([
            human::clean(&gateway.name),
            human::clean(&gateway.zone),
            human::clean(&gateway.version),
            state.to_owned(),
            number(gateway.tunnels_open),
            number(gateway.calls_in_flight),
        ]);
    }
    table.trim_fmt()
}

pub(super) async fn stats(args: StatsArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let stats = client.stats(api::StatsRequest {}).await;
    let stats = stats.map_err(failed)?.into_inner();
    if args.json {
        writeln!(out, "{}", api::json("StatsResponse", &stats)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ready = match stats.ready {
        true => "ready",
        false => "not ready",
    };
    let uptime = human::duration(stats.uptime).map(age::short);
    let memory = match stats.memory_budget {
        0 => human::bytes(stats.memory_used),
        budget => format!(
            "{} of {}",
            human::bytes(stats.memory_used),
            human::bytes(budget)
        ),
    };
    let lines = [
        ("state", ready.to_owned()),
        ("version", human::clean(&stats.version)),
        ("up for", uptime.unwrap_or_default()),
        ("devices connected", stats.devices_connected.to_string()),
        ("devices denied", stats.devices_denied.to_string()),
        ("tunnels open", stats.tunnels_open.to_string()),
        ("tunnels in all", stats.tunnels_total.to_string()),
        ("calls in flight", stats.calls_in_flight.to_string()),
        ("calls in all", stats.calls_total.to_string()),
        ("messages sent", stats.messages_sent.to_string()),
        ("messages received", stats.messages_received.to_string()),
        ("sent", human::bytes(stats.bytes_sent)),
        ("received", human::bytes(stats.bytes_received)),
        ("memory", memory),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:<18} {value}")?;
    }
    if !stats.gateways.is_empty() {
        writeln!(out, "\n{}", gateways(&stats.gateways))?;
    }
    Ok(ExitCode::SUCCESS)
}
