//! `tunnel tap`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use data_encoding::HEXLOWER;

use super::api::tap_event::Event;
use super::client::{AdminArgs, failed};
use super::{api, human};

/// Show the calls of clients as they end, a line each: time, key, method, status, duration, bytes, client; in a fleet also the
/// gateway that the client has called.
#[derive(Debug, clap::Args)]
pub(crate) struct TapArgs {
    /// Only calls of keys that match, for example 'berlin-*'. Default: all.
    #[arg(value_name = "GLOB", default_value = "", hide_default_value = true)]
    key: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// A line for each call that begins too.
    #[arg(long)]
    begin: bool,
    /// Show the first bytes of the messages in each direction, as hexadecimal digits. They may contain secrets.
    #[arg(long, value_name = "BYTES", num_args = 0..=1, default_value = "0", default_missing_value = "256", hide_default_value = true)]
    bodies: u32,
    /// A line of JSON for each event.
    #[arg(long)]
    json: bool,
}

pub(super) async fn tap(args: TapArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let request = api::TapRequest {
        filter: args.key,
        body_bytes: args.bodies,
    };
    let mut events = client.tap(request).await.map_err(failed)?.into_inner();
    while let Some(event) = events.message().await.map_err(failed)? {
        if matches!(event.event, Some(Event::Began(_))) && !args.begin {
            continue;
        }
        match args.json {
            true => writeln!(out, "{}", api::json("TapEvent", &event)?)?,
            false => write!(out, "{}", lines(&event))?,
        }
        out.flush()?;
    }
    writeln!(std::io::stderr(), "the gateway is drained")?;
    Ok(ExitCode::SUCCESS)
}

/// An event for people.
fn lines(event: &api::TapEvent) -> String {
    let time = human::time(event.at, "%T%.3f");
    let what = match &event.event {
        Some(Event::Began(_)) => "began".to_owned(),
        Some(Event::Ended(ended)) => outcome(ended),
        Some(Event::Missed(missed)) => return format!("{time} missed {} events\n", missed.events),
        Some(Event::GatewayUp(_)) => {
            return format!("{time} {} is up\n", human::clean(&event.gateway));
        }
        Some(Event::GatewayDown(down)) => {
            let line = format!("{} is down: {}", event.gateway, down.reason);
            return format!("{time} {}\n", human::clean(&line));
        }
        None => "an event of a newer gateway".to_owned(),
    };
    let key = match event.key.as_str() {
        "" => "(gateway)",
        key => key,
    };
    let who = match event.who.as_str() {
        "" => "anonymous",
        who => who,
    };
    let mut line = format!("{key} {} {what} {who}@{}", event.method, event.peer);
    if !event.gateway.is_empty() {
        line += &format!(" at {}", event.gateway);
    }
    let mut lines = format!("{time} {}\n", human::clean(&line));
    if let Some(Event::Ended(ended)) = &event.event {
        for (name, bytes) in [("request", &ended.request), ("response", &ended.response)] {
            if !bytes.is_empty() {
                lines += &format!("    {name}: {}\n", HEXLOWER.encode(bytes));
            }
        }
    }
    lines
}

fn outcome(ended: &api::CallEnded) -> String {
    let duration = human::duration(ended.duration).unwrap_or_default();
    let (received, sent) = (
        human::bytes(ended.bytes_received),
        human::bytes(ended.bytes_sent),
    );
    let message = match ended.message.as_str() {
        "" => String::new(),
        message => format!(" {message:?}"),
    };
    let (status, duration) = (&ended.status, human::round_trip(duration));
    format!("{status}{message} {duration} {received} in, {sent} out")
}
