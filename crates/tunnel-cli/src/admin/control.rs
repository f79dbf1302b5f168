//! The commands that change something: `kick`, `deny`, `allow`, `denied` and `drain`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::client::{AdminArgs, failed};
use super::{api, human};

/// End the tunnels of a device. It may come back; see `deny`.
#[derive(Debug, clap::Args)]
pub(crate) struct KickArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The key of the device.
    key: String,
    /// Why. The device is told.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Deny a device: end its tunnels, and refuse new ones and calls.
#[derive(Debug, clap::Args)]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The key of the device.
    key: String,
    /// Why. The device and its callers are told.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// For how long, for example 1h or 2days. Default: until it is allowed.
    #[arg(long = "for", value_name = "TIME")]
    time: Option<humantime::Duration>,
}

/// Allow a device that was denied.
#[derive(Debug, clap::Args)]
pub(crate) struct AllowArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The key of the device.
    key: String,
}

/// List the devices that are denied.
#[derive(Debug, clap::Args)]
pub(crate) struct DeniedArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// A line of JSON for each device.
    #[arg(long)]
    json: bool,
}

/// Drain the gateway: it takes no new tunnels and calls, and waits for the calls in flight. There is no way back.
///
/// Waits until no tunnel is left. The drain goes on if this command is stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// End the calls in flight after this time, for example 30s.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: humantime::Duration,
    /// Begin no drain, but say how far it is. The exit code is 0 if the gateway is drained, or if it is one of a fleet and every
    /// device is at another gateway too; otherwise 1.
    #[arg(long, conflicts_with = "timeout")]
    check: bool,
}

pub(super) async fn kick(args: KickArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let request = api::KickRequest {
        key: args.key.clone(),
        reason: args.reason,
    };
    let kicked = client.kick(request).await.map_err(failed)?.into_inner();
    writeln!(out, "{:?}: {}", args.key, ended(kicked.tunnels))?;
    human::unreachable(&kicked.unreachable, out)?;
    Ok(ExitCode::SUCCESS)
}

fn ended(tunnels: u64) -> String {
    match tunnels {
        0 => "no tunnel was open".to_owned(),
        1 => "1 tunnel is ended".to_owned(),
        n => format!("{n} tunnels are ended"),
    }
}

pub(super) async fn deny(args: DenyArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let duration = args.time.map(|time| prost_types::Duration::try_from(*time));
    let request = api::DenyRequest {
        key: args.key.clone(),
        reason: args.reason,
        duration: duration.transpose().context("--for is too long")?,
    };
    let denied = client.deny(request).await.map_err(failed)?.into_inner();
    let until = match denied.denial.and_then(|denial| denial.until) {
        Some(until) => format!("denied until {}", human::time(Some(until), "%F %T")),
        None => "denied".to_owned(),
    };
    let ended = match denied.gateway.as_str() {
        "" => ended(denied.tunnels),
        gateway => format!("{} at {}", ended(denied.tunnels), human::clean(gateway)),
    };
    writeln!(out, "{:?}: {until}, {ended}", args.key)?;
    say_unconfirmed(&denied.unconfirmed, out)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn allow(args: AllowArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let request = api::AllowRequest {
        key: args.key.clone(),
    };
    let allowed = client.allow(request).await.map_err(failed)?.into_inner();
    let what = match allowed.was_denied {
        true => "allowed again",
        false => "was not denied",
    };
    writeln!(out, "{:?}: {what}", args.key)?;
    say_unconfirmed(&allowed.unconfirmed, out)?;
    Ok(ExitCode::SUCCESS)
}

fn say_unconfirmed(who: &[String], out: &mut impl Write) -> Result<()> {
    for name in who {
        writeln!(out, "not confirmed: {}", human::clean(name))?;
    }
    Ok(())
}

pub(super) async fn denied(args: DeniedArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let denied = client.list_denied(api::ListDeniedRequest {}).await;
    let denied = denied.map_err(failed)?.into_inner();
    let mut table = human::table(&["KEY", "SINCE", "UNTIL", "BY", "REASON"], &[]);
    for denial in denied.denials {
        if args.json {
            writeln!(out, "{}", api::json("Denial", &denial)?)?;
            continue;
        }
        table.add_row([
            human::clean(&denial.key),
            human::age(denial.since),
            human::time(denial.until, "%F %T"),
            human::clean(&denial.by),
            human::clean(&denial.reason),
        ]);
    }
    match args.json {
        true => human::unreachable(&denied.unreachable, &mut std::io::stderr())?,
        false => {
            writeln!(out, "{}", table.trim_fmt())?;
            human::unreachable(&denied.unreachable, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn drain(args: DrainArgs, out: &mut impl Write) -> Result<ExitCode> {
    let mut client = args.admin.client().await?;
    let timeout = prost_types::Duration::try_from(*args.timeout);
    let request = api::DrainRequest {
        timeout: Some(timeout.context("--timeout is too long")?),
        check: args.check,
    };
    let drain = client.drain(request).await.map_err(failed)?.into_inner();
    let how_far = match (drain.drained, drain.draining) {
        (true, _) => "drained",
        (false, true) => "draining",
        (false, false) => "not draining",
    };
    writeln!(
        out,
        "{how_far} (open tunnels: {}, calls in flight: {})",
        drain.tunnels_open, drain.calls_in_flight
    )?;
    let costs_nobody = args.check && drain.in_fleet && drain.only_here.is_empty();
    if args.check && drain.in_fleet {
        match drain.only_here.as_slice() {
            [] => writeln!(out, "every device is at another gateway too")?,
            keys => {
                let some: Vec<String> = keys.iter().take(10).map(|key| human::clean(key)).collect();
                let more = if keys.len() > some.len() { ", ..." } else { "" };
                writeln!(out, "only here: {} ({}{more})", keys.len(), some.join(", "))?;
            }
        }
    }
    match drain.drained || costs_nobody {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}
