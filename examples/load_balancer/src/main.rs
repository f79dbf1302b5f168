//! The load balancer example, all in one program.
//!
//! HAProxy sends every HTTP/2 request to the next of two backends. So plain calls
//! of one client spread over both. A tunnel is one request to HAProxy, so all its
//! calls reach the same backend. The next tunnel reaches the other one.
//!
//! # HAProxy settings for tunnels
//!
//! The configuration is `src/haproxy.cfg`, plus the servers. These settings matter,
//! as measured with HAProxy 2.6 and 3.0:
//!
//! - **`mode http`, and `proto h2` on both sides.** Without TLS there is no ALPN to
//!   negotiate HTTP/2, so the `bind` line and each `server` line must set it.
//! - **`timeout client` and `timeout server`, both.** They end a tunnel that was
//!   silent for this time. HAProxy 2.6 uses `timeout server`, 3.0 uses
//!   `timeout client`. Traffic in either direction restarts the timeout. Debian's
//!   default is 50 seconds for both; this example sets an hour. Without them HAProxy
//!   waits for ever, and warns when it starts.
//! - **`timeout tunnel` has no effect.** It is for WebSockets, CONNECT and plain
//!   TCP.
//! - **HTTP/2 pings have no effect either.** HAProxy answers the keepalive pings of
//!   both ends itself. They show that HAProxy is alive, and do not keep a tunnel
//!   open. Set timeouts longer than the longest silence, or use heartbeats.
//! - **`tune.h2.initial-window-size`.** All calls of a tunnel are one request, and by
//!   default HAProxy takes 64 KiB of a request in each round trip.
//!
//! When HAProxy cuts off a tunnel, its calls fail with UNAVAILABLE, although 2.6
//! ends the stream cleanly. The next tunnel can be opened on the same channel.
//!
//! After a reload, the old HAProxy process takes no new connections and stays until
//! its last tunnel has ended; `hard-stop-after` limits for how long.

mod backend;
mod calls;
mod config;
mod haproxy;
mod report;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use example_support::address::Address;
use example_support::signal::Shutdown;
use example_support::{exit, log};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};
use tunnel_client::{ForwardTunnel, Report, endpoint_for_tunnels};

use crate::backend::Backend;
use crate::haproxy::Haproxy;
use crate::report::{Tally, table};

/// The backends behind HAProxy.
const BACKENDS: [&str; 2] = ["A", "B"];

/// How many tunnels are opened, one after another.
const TUNNELS: usize = 2;

/// Shows that calls through HAProxy spread over its backends, and that those in a
/// tunnel stay with one.
///
/// If HAProxy is not installed, the program logs a warning and succeeds. If the
/// environment variable CI is set, it fails instead.
#[derive(Parser)]
#[command(name = "load-balancer")]
struct Args {
    /// The HAProxy to start: a path, or a name to search for.
    #[arg(long, value_name = "PATH", default_value = "haproxy")]
    haproxy: PathBuf,

    /// The number of plain calls, and of calls in each tunnel. At least one for each
    /// backend.
    #[arg(long, value_name = "N", default_value = "10",
          value_parser = clap::value_parser!(u32).range(BACKENDS.len() as i64..))]
    calls: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::init(module_path!());
    exit::code(run(&args).await)
}

async fn run(args: &Args) -> Result<()> {
    let Some(program) = haproxy::find(&args.haproxy) else {
        return without_haproxy(&args.haproxy);
    };
    let mut shutdown = Shutdown::watch().context("signals cannot be watched")?;
    let backends = start_backends().await?;
    let servers = backends
        .iter()
        .map(|backend| (backend.name(), backend.address()));
    let mut haproxy = Haproxy::start(&program, &config::with_servers(servers))?;
    let id = haproxy.id().unwrap_or_default();
    let address = haproxy.address();
    info!("Started HAProxy, process {id}, on {address}, in front of both");

    let shown = tokio::select! {
        biased;
        () = shutdown.requested() => Err(anyhow!("asked to end before all was shown")),
        shown = show_through(&mut haproxy, args.calls as usize) => shown,
    };
    // HAProxy is stopped before the result is logged.
    let stopped = haproxy.stop().await;
    shown.and(stopped)?;
    info!("✓ Plain calls spread over both backends, each tunnel stayed on one");
    Ok(())
}

/// Without HAProxy: logs a warning, or fails if CI is set.
fn without_haproxy(program: &Path) -> Result<()> {
    let program = program.display();
    let advice = "install it with `apt-get install haproxy`";
    if env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        bail!("there is no {program} to run, and with CI set nothing is skipped: {advice}");
    }
    warn!("SKIPPED, nothing was shown: there is no {program} to run; {advice}");
    Ok(())
}

async fn start_backends() -> Result<Vec<Backend>> {
    let mut backends = Vec::new();
    for name in BACKENDS {
        let backend = Backend::start(name).await?;
        info!("Backend {name} listens on {}", backend.address());
        backends.push(backend);
    }
    Ok(backends)
}

/// Runs the example until its end, or until HAProxy ends.
async fn show_through(haproxy: &mut Haproxy, calls: usize) -> Result<()> {
    let address = haproxy.address().clone();
    tokio::select! {
        reason = haproxy.ended() => Err(reason),
        shown = show(&address, calls) => match shown {
            Ok(()) => Ok(()),
            Err(failure) => Err(haproxy.reason_for(failure).await),
        },
    }
}

async fn show(address: &Address, calls: usize) -> Result<()> {
    let channel = connect(address).await?;
    info!("--- Plain calls: each goes to the next backend ---");
    let plain = calls::make("plain calls", channel.clone(), calls).await?;
    let mut tunnelled = Vec::new();
    for n in 1..=TUNNELS {
        info!("--- Calls through a tunnel: all go to one backend ---");
        tunnelled.push(through_tunnel(n, channel.clone(), calls).await?);
    }
    for line in table(std::iter::once(&plain).chain(&tunnelled)) {
        info!("{line}");
    }
    verdict(&plain, &tunnelled)
}

async fn through_tunnel(n: usize, channel: Channel, calls: usize) -> Result<Tally> {
    let tunnel = ForwardTunnel::new(channel).open().await;
    let tunnel = tunnel.map_err(|error| anyhow!("cannot open a tunnel: {}", Report(&error)))?;
    let tally = calls::make(&format!("tunnel {n}"), tunnel.clone(), calls).await?;
    tunnel.close().await;
    Ok(tally)
}

async fn connect(address: &Address) -> Result<Channel> {
    let endpoint = endpoint_for_tunnels(Endpoint::from_shared(address.url())?);
    let channel = endpoint.connect().await;
    channel.map_err(|error| anyhow!("cannot connect to {address}: {}", exit::root_cause(&error)))
}

/// Checks the results that the example demonstrates.
fn verdict(plain: &Tally, tunnelled: &[Tally]) -> Result<()> {
    ensure!(
        plain.backends() == BACKENDS.len(),
        "plain calls did not reach every backend"
    );
    for tunnel in tunnelled {
        let stayed = tunnel.backends() == 1;
        ensure!(stayed, "{} did not stay on one backend", tunnel.name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Tally, verdict};

    fn tally(answered_by: &[&str]) -> Tally {
        let mut tally = Tally::new("some calls");
        for backend in answered_by {
            tally.count_answer(backend);
        }
        tally
    }

    #[test]
    fn only_plain_calls_that_spread_and_tunnels_that_stayed_are_a_success() {
        let (spread, stayed) = (tally(&["A", "B"]), tally(&["B", "B"]));
        let tunnels = [stayed.clone(), stayed.clone()];
        verdict(&spread, &tunnels).expect("this is how it should be");
        let error = verdict(&stayed, &tunnels).expect_err("plain calls stayed");
        assert_eq!(error.to_string(), "plain calls did not reach every backend");
        for tunnel in [spread.clone(), tally(&[])] {
            let error = verdict(&spread, &[stayed.clone(), tunnel]).expect_err("a tunnel strayed");
            assert_eq!(error.to_string(), "some calls did not stay on one backend");
        }
    }
}
