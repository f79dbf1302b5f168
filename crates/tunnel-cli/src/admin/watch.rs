//! `tunnel watch`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::api::watch_event::Event;
use super::client::{AdminArgs, failed};
use super::{api, human};
use crate::age;

/// Show the devices that are connected or denied, and then each change, in a line each.
///
/// In a fleet a key is followed by its gateway: KEY@GATEWAY. "down" is a gateway whose changes are not seen, and "up" one
/// that answers again or has come.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only keys that match, for example 'berlin-*'.
    #[arg(long, value_name = "GLOB", default_value = "")]
    filter: String,
    /// A line of JSON for each event.
    #[arg(long)]
    json: bool,
}

pub(super) async fn watch(args: WatchArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let request = api::WatchRequest {
        filter: args.filter,
    };
    let mut events = client.watch(request).await.map_err(failed)?.into_inner();
    while let Some(event) = events.message().await.map_err(failed)? {
        match args.json {
            true => writeln!(out, "{}", api::json("WatchEvent", &event)?)?,
            false => writeln!(out, "{}", line(&event))?,
        }
        out.flush()?;
    }
    writeln!(std::io::stderr(), "the gateway is drained")?;
    Ok(ExitCode::SUCCESS)
}

/// An event for people.
fn line(event: &api::WatchEvent) -> String {
    let (name, detail) = match event.event.as_ref() {
        Some(Event::Present(device)) => ("present", present(device)),
        Some(Event::Synced(_)) => ("synced", "changes follow".to_owned()),
        Some(Event::Opened(opened)) => (
            "opened",
            opened.tunnel.as_ref().map(tunnel).unwrap_or_default(),
        ),
        Some(Event::Closed(closed)) => {
            let open = human::duration(closed.duration).unwrap_or_default();
            let calls = closed.stats.as_ref().map_or(0, |stats| stats.calls_total);
            let (id, age) = (&closed.tunnel_id, age::short(open));
            (
                "closed",
                format!("{id} after {age} and {calls} calls: {}", closed.reason),
            )
        }
        Some(Event::Refused(refused)) => ("refused", from(&refused.peer, &refused.reason)),
        Some(Event::Denied(denial)) => ("denied", denied(denial)),
        Some(Event::Allowed(_)) => ("allowed", String::new()),
        Some(Event::Missed(missed)) => ("missed", format!("{} events", missed.events)),
        Some(Event::GatewayUp(_)) => ("up", "what is true there follows".to_owned()),
        Some(Event::GatewayDown(down)) => ("down", down.reason.clone()),
        None => ("unknown", "an event of a newer gateway".to_owned()),
    };
    let time = human::time(event.at, "%T");
    // In a fleet: at which gateway.
    let key = match event.gateway.is_empty() {
        true => event.key.clone(),
        false => format!("{}@{}", event.key, event.gateway),
    };
    let (key, detail) = (human::clean(&key), human::clean(&detail));
    format!("{time} {name:<8} {key}  {detail}")
        .trim_end()
        .to_owned()
}

fn present(device: &api::Device) -> String {
    let mut parts = vec![device.state().as_str_name().to_lowercase()];
    parts.extend(device.denial.as_ref().map(denied));
    parts.extend(device.tunnels.iter().map(tunnel));
    parts.join(", ")
}

fn tunnel(tunnel: &api::Tunnel) -> String {
    from(&tunnel.peer, &tunnel.id)
}

fn from(peer: &str, what: &str) -> String {
    match peer.is_empty() {
        true => what.to_owned(),
        false => format!("{what} from {peer}"),
    }
}

fn denied(denial: &api::Denial) -> String {
    let until = denial
        .until
        .map(|until| human::time(Some(until), "until %F %T, "));
    let (until, by) = (until.unwrap_or_default(), &denial.by);
    let reason = match denial.reason.is_empty() {
        true => String::new(),
        false => format!(": {}", denial.reason),
    };
    format!("{until}by {by}{reason}")
}
