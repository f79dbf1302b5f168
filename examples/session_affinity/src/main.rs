//! The session affinity example, all in one program.
//!
//! Two backends keep the sessions of their users in memory. Clients know one
//! address, behind which a balancer sends every call to the next backend, as
//! balancers of HTTP/2 do. A session breaks at the second call. A tunnel is one
//! call to the balancer, so all that goes through it stays with one backend.

mod backend;
mod balancer;
mod report;
mod rounds;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use example_support::address::Address;
use example_support::listen::Listener;
use example_support::{exit, log};
use tonic::transport::{Channel, Endpoint};
use tracing::info;
use tunnel_client::{ForwardTunnel, Report, endpoint_for_tunnels};

use crate::backend::Backend;
use crate::balancer::Balancer;
use crate::report::{Tally, table};

/// The protobuf package `test`: the messages and the stubs of `SessionService`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod test {
    include!("generated/test.rs");
}

/// The backends behind the one address.
const BACKENDS: [&str; 2] = ["A", "B"];

/// How many tunnels are opened, one after another.
const TUNNELS: usize = 2;

/// Shows that sessions break behind a balancer, and hold in a tunnel.
#[derive(Parser)]
#[command(name = "session-affinity")]
struct Args {
    /// The address of the balancer. Port 0 means any free port.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    address: Address,

    /// The number of sessions, with plain calls and in each tunnel.
    #[arg(long, value_name = "N", default_value = "10")]
    rounds: NonZeroUsize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log::init(module_path!());
    exit::code(run(&args).await)
}

async fn run(args: &Args) -> Result<()> {
    let rounds = args.rounds.get();
    let (address, _running) = start(&args.address).await?;
    let channel = connect(&address).await?;

    info!("--- Plain calls: each goes to the next backend ---");
    let plain = rounds::run("plain calls", channel.clone(), rounds).await?;
    let mut tunnelled = Vec::new();
    for n in 1..=TUNNELS {
        info!("--- Calls through a tunnel: all go to the backend that accepted it ---");
        tunnelled.push(through_tunnel(n, channel.clone(), rounds).await?);
    }

    for line in table(std::iter::once(&plain).chain(&tunnelled)) {
        info!("{line}");
    }
    verdict(&plain, &tunnelled)?;
    info!("✓ Plain calls broke the sessions, tunnels held them");
    Ok(())
}

/// Starts the backends and the balancer. Returns the balancer's address, and the
/// servers, which stop when dropped.
async fn start(address: &Address) -> Result<(Address, (Vec<Backend>, Balancer))> {
    let listener = Listener::bind(address).await?;
    let address = address.with_port(listener.port());
    let mut backends = Vec::new();
    let mut channels = Vec::new();
    for name in BACKENDS {
        let backend = Backend::start(name).await?;
        info!("Backend {name} listens on {}", backend.address());
        channels.push(connect(backend.address()).await?);
        backends.push(backend);
    }
    let balancer = Balancer::start(listener, channels);
    info!("✓ Balancer listening on {address}, in front of both");
    Ok((address, (backends, balancer)))
}

async fn through_tunnel(n: usize, channel: Channel, rounds: usize) -> Result<Tally> {
    let tunnel = ForwardTunnel::new(channel).open().await;
    let tunnel = tunnel.map_err(|error| anyhow!("cannot open a tunnel: {}", Report(&error)))?;
    let tally = rounds::run(&format!("tunnel {n}"), tunnel.clone(), rounds).await?;
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
        plain.held() < plain.rounds(),
        "plain calls broke no session"
    );
    for tunnel in tunnelled {
        let held = tunnel.held() == tunnel.rounds() && tunnel.backends() == 1;
        ensure!(held, "{} did not hold every session", tunnel.name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Tally, verdict};

    /// One session whose two calls were answered by these backends.
    fn tally(answered_by: [&str; 2], held: bool) -> Tally {
        let mut tally = Tally::new("some calls");
        for backend in answered_by {
            tally.count_answer(backend);
        }
        tally.count_round(held);
        tally
    }

    #[test]
    fn only_broken_plain_calls_and_tunnels_that_held_are_a_success() {
        let (broken, held) = (tally(["A", "B"], false), tally(["A", "A"], true));
        let (held, strayed) = ([held.clone(), held], tally(["A", "B"], true));
        verdict(&broken, &held).expect("this is how it should be");
        let error = verdict(&held[0], &held).expect_err("plain calls held");
        assert_eq!(error.to_string(), "plain calls broke no session");
        for tunnel in [&broken, &strayed] {
            let error = verdict(&broken, std::slice::from_ref(tunnel)).expect_err("a tunnel broke");
            assert_eq!(error.to_string(), "some calls did not hold every session");
        }
    }
}
