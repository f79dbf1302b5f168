//! `tunnel agent`: exposes local gRPC servers through reverse tunnels.

mod certificate;
mod ports;
mod routes;
mod settings;
mod target;
#[cfg(test)]
pub(crate) mod tests;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tunnel_client::{Backoff, Gateway, LinkState, LinksHandle, ReverseTunnelServer};

use crate::connect::Credentials;
use crate::reload::Hangup;
use crate::settings::printed;
use crate::signals::Signals;
use crate::systemd;
use crate::tunnels;
use routes::{Router, parse_rules};
use settings::Settings;

/// The longest pause after a refusal. A device that is allowed again, or gets new credentials, is to be back soon.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// How long the end after a second signal may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Exposes a local gRPC server, of any language, at gateways under a key.
///
/// Tunnels that are lost or refused are opened again, for as long as the agent runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// A TOML file with settings.
    #[arg(long, env = "TUNNEL_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings as a TOML file, and exit.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Runs until ctrl-c or SIGTERM, then lets the calls in flight end. A second signal ends it at once.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let settings = args.settings.complete(args.config.as_deref())?;
    if args.print_config {
        print!("{}", printed(&settings)?);
        return Ok(ExitCode::SUCCESS);
    }
    settings.check()?;
    let mut signals = Signals::catch()?;
    tokio::select! {
        obtained = certificate::obtain(&settings) => obtained?,
        () = signals.next() => return Ok(ExitCode::FAILURE),
    }
    tokio::spawn(systemd::watchdog());
    tokio::spawn(hangups(Hangup::new()?));
    let server = server(&settings)?;
    say(&format!("agent: {}", exposed(&settings)?));
    let handle = server.handle();
    let mut running = tokio::spawn(server.run());
    tokio::select! {
        stopped = &mut running => {
            tracing::error!("the agent has stopped: {}", stopped?);
            return Ok(ExitCode::FAILURE);
        }
        () = report(&handle) => {}
        () = signals.next() => {}
    }
    systemd::stopping();
    let timeout = Duration::from_secs(settings.drain_timeout.unwrap_or(20));
    tracing::info!("draining: calls in flight have {timeout:?}; a second signal ends them");
    tokio::select! {
        () = handle.drain(timeout) => Ok(ExitCode::SUCCESS),
        () = signals.next() => {
            tracing::warn!("ended with calls in flight");
            // A moment to tell the gateways.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, handle.close()).await;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The server of the agent's tunnels.
fn server(settings: &Settings) -> Result<ReverseTunnelServer> {
    let router = Router::new(parse_rules(&settings.to)?, settings.to_ca.as_deref())?;
    let credentials = settings.credentials();
    let mut gateways = settings.gateway.iter();
    let first = gateways.next().context("no gateway")?;
    let mut builder = ReverseTunnelServer::builder(gateway(first, &credentials)?);
    for address in gateways {
        builder = builder.gateway(gateway(address, &credentials)?);
    }
    let builder = builder
        .config(tunnels::config()?)
        .backoff(Backoff::default().refused_cap(REFUSED_PAUSE))
        .tunnels_per_gateway(settings.tunnels.unwrap_or(1))
        .metadata(settings.metadata()?)
        .credentials(move |_| {
            let metadata = token(&credentials);
            async move { metadata }
        })
        .fallback(router);
    Ok(builder.build())
}

/// Prints a line for each tunnel that opens. The library logs the rest.
async fn report(handle: &LinksHandle) {
    let mut links = handle.watch();
    let mut shown = Vec::new();
    loop {
        let now: Vec<_> = links
            .borrow_and_update()
            .iter()
            .filter_map(|link| match link.state() {
                LinkState::Connected(tunnel) => Some((link.gateway().to_owned(), tunnel.clone())),
                _ => None,
            })
            .collect();
        for (gateway, tunnel) in &now {
            if !shown.contains(&tunnel.id()) {
                let key = tunnel.key().map_or("(none)", |key| key.as_str());
                say(&format!("agent: connected to {gateway} as {key}"));
            }
        }
        systemd::connected_to(now.iter().map(|(gateway, _)| gateway.as_str()));
        shown = now.iter().map(|(_, tunnel)| tunnel.id()).collect();
        if links.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Prints a line. An agent goes on when nobody reads what it prints.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What is exposed where, in one line.
fn exposed(settings: &Settings) -> Result<String> {
    let rules = parse_rules(&settings.to)?;
    let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
    let key = settings
        .key
        .as_deref()
        .unwrap_or("the name in its credentials");
    Ok(format!(
        "exposing {} as {key} at {}",
        rules.join(", "),
        settings.gateway.join(", ")
    ))
}

/// A gateway. With certificates, each connection reads their files again.
fn gateway(address: &str, credentials: &Credentials) -> Result<Gateway> {
    let endpoint = credentials.endpoint(address)?;
    // A gateway that stops sends its agents to others of its fleet, where the same credentials count.
    let for_siblings = credentials.clone();
    let sibling = move |uri: &http::Uri| gateway(&uri.to_string(), &for_siblings).ok();
    let gateway = match credentials.ca.is_none() && credentials.cert.is_none() {
        true => Gateway::from(endpoint).name(address),
        false => credentials.gateway(address),
    };
    Ok(gateway.siblings_with(sibling))
}

/// The metadata with the token, read from its file.
fn token(credentials: &Credentials) -> Result<MetadataMap, Status> {
    let mut metadata = MetadataMap::new();
    match credentials.authorization() {
        Ok(Some(token)) => {
            metadata.insert("authorization", token);
        }
        Ok(None) => {}
        // Not a refusal: the file may be about to be written.
        Err(error) => return Err(Status::unavailable(format!("{error:#}"))),
    }
    Ok(metadata)
}

/// SIGHUP, which would end the program. There is nothing to read again: each connection reads its files anew.
async fn hangups(mut hangup: Hangup) {
    loop {
        hangup.recv().await;
        tracing::info!(
            "SIGHUP: each connection reads the credentials again; settings need a restart"
        );
    }
}
