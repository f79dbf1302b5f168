//! The load balancer example, all in one program.
//!
//! Two backends stand behind HAProxy, which sends every HTTP/2 request to the
//! next of them. Plain calls of one client therefore spread over both. A tunnel
//! is one request to HAProxy, so all calls that go through it stay with the
//! backend that it came to; the next tunnel comes to another.
//!
//! # What HAProxy must be told for tunnels
//!
//! The configuration is `src/haproxy.cfg`, to which the servers are added. What
//! matters in it, measured with HAProxy 2.6 and 3.0:
//!
//! - **`mode http`, and `proto h2` on both sides.** Without TLS nothing negotiates
//!   HTTP/2, so the `bind` line has to say it and so has each `server` line.
//! - **`timeout client` and `timeout server`, both.** They end a tunnel through
//!   which nothing has passed for so long. HAProxy 2.6 goes by `timeout server`
//!   and 3.0 by `timeout client`: with 2 seconds for the one that counts, a tunnel
//!   is gone 2 seconds after its last call, and with the 50 seconds that Debian's
//!   own configuration has for both, after 50. Whatever passes in either direction
//!   starts the time anew: tunnels with a call every second, or with a stream that
//!   sends one message after another in one direction only, last. Here both are an
//!   hour; without them HAProxy waits for ever, and warns of it when it starts.
//! - **`timeout tunnel` does not count.** It is for WebSockets, CONNECT and plain
//!   TCP: an hour of it saves no idle tunnel, and 2 seconds of it end none.
//! - **HTTP/2 pings do not count either.** HAProxy answers the keepalive of both
//!   ends itself. It tells each of them that HAProxy is there, and keeps no tunnel
//!   open. Choose timeouts longer than the longest silence, or break the silence
//!   with a call: a health check, say, through the tunnel.
//! - **`tune.h2.initial-window-size`.** All calls of a tunnel are one request, and
//!   HAProxy takes 64 KiB of a request for each round trip. With round trips of
//!   50 ms a tunnel sent 1.2 MB/s to it; with 16 MiB it sent 50 MB/s and more,
//!   nearly what it does without HAProxy.
//!
//! A tunnel that HAProxy cuts off does not look like a success, although 2.6 ends
//! its stream as if nothing were left to say: the calls in it fail with
//! UNAVAILABLE. The next tunnel can be opened on the same channel.
//!
//! When HAProxy is told to reload its configuration, the process with the old one
//! takes no new connections and stays until the last tunnel in it has ended;
//! `hard-stop-after` limits for how long.

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
/// Where HAProxy is not installed there is nothing to show: a warning says so, and
/// the program succeeds, unless the environment variable CI is set to something.
/// Then nothing may be skipped, and it fails.
#[derive(Parser)]
#[command(name = "load-balancer")]
struct Args {
    /// The HAProxy to start: a path, or a name to search for.
    #[arg(long, value_name = "PATH", default_value = "haproxy")]
    haproxy: PathBuf,

    /// How many plain calls to make, and in each tunnel; at least one for each
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
    let id = haproxy.id();
    let address = haproxy.address();
    info!("Started HAProxy, process {id}, on {address}, in front of both");

    let shown = tokio::select! {
        biased;
        () = shutdown.requested() => Err(anyhow!("asked to end before all was shown")),
        shown = show_through(&mut haproxy, args.calls as usize) => shown,
    };
    // Whatever came of it, HAProxy has ended when this program says how it went.
    let stopped = haproxy.stop();
    shown.and(stopped)?;
    info!("✓ Plain calls spread over both backends, each tunnel stayed on one");
    Ok(())
}

/// Where there is no HAProxy: a success that nobody can mistake for the real one,
/// or a failure where nothing may be skipped.
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

/// Shows it all, unless HAProxy ends.
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
    info!("--- Plain calls: each goes to the backend whose turn it is ---");
    let plain = calls::make("plain calls", channel.clone(), calls).await?;
    let mut tunnelled = Vec::new();
    for n in 1..=TUNNELS {
        info!("--- Calls through a tunnel: all go to the backend that it came to ---");
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

/// Whether the example has shown what it is there to show.
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
