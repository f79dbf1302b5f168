//! Calls at intervals over a channel that keeps its tunnel up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use example_support::address::Address;
use example_support::caller::Caller;
use example_support::signal::Shutdown;
use example_support::test::echo_service_client::EchoServiceClient;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::transport::Endpoint;
use tracing::{info, warn};
use tunnel_client::{ForwardChannel, LinkState, LinksHandle, Report, TunnelError, WhenNoTunnel};

/// The time that calls in flight have at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// A channel that opens its tunnel again when it is lost. Meanwhile calls wait, up to their
/// deadlines.
pub(crate) async fn connect(address: &Address) -> Result<ForwardChannel> {
    let endpoint = Endpoint::from_shared(address.url())?;
    let channel = ForwardChannel::builder(endpoint)
        .when_no_tunnel(WhenNoTunnel::Wait)
        .connect()
        .await;
    channel.map_err(|error| match error {
        TunnelError::Channel(_) => anyhow!("cannot connect to {address}: {}", Report(&error)),
        _ => anyhow!("cannot open a tunnel to {address}: {}", Report(&error)),
    })
}

/// Makes a call every `every` seconds, until Ctrl-C or until `duration` seconds
/// have passed. Logs when the tunnel is lost and when another one is open.
pub(crate) async fn run(channel: ForwardChannel, every: u64, duration: Option<u64>) -> Result<()> {
    let mut stop = Shutdown::watch().context("signals cannot be watched")?;
    let handle = channel.handle();
    let caller = Caller::new(EchoServiceClient::new(channel));
    let until = duration.map_or("Ctrl-C".into(), |seconds| {
        format!("{seconds} s have passed")
    });
    info!("A call every {every} s, until {until}");
    let start = Instant::now();
    let mut calls = 0;
    let end = tokio::select! {
        biased;
        failed = call_again_and_again(&caller, every, &mut calls) => return failed,
        () = tell(&handle) => "The channel was closed",
        () = stop.requested() => "Ctrl-C",
        () = pass(duration) => "Time is up",
    };
    let seconds = start.elapsed().as_secs_f64();
    info!("{end}: {calls} calls in {seconds:.1} s, all of them answered");
    info!("✓ All calls completed successfully!");
    info!("Closing tunnel...");
    handle.drain(DRAIN).await;
    info!("✓ Tunnel closed");
    Ok(())
}

/// Logs lost and new tunnels.
async fn tell(handle: &LinksHandle) {
    let mut links = handle.watch();
    let mut current = None;
    loop {
        if let Some(link) = links.borrow_and_update().first() {
            let tunnel = match link.state() {
                LinkState::Connected(tunnel) => Some(tunnel.id()),
                _ => None,
            };
            match (current, tunnel) {
                (Some(_), None) => match link.last_error() {
                    Some(error) => warn!("Lost the tunnel: {}", Report(error)),
                    None => warn!("Lost the tunnel"),
                },
                (None, Some(id)) => info!("Tunnel {id} is up"),
                (Some(old), Some(id)) if old != id => info!("Tunnel {id} replaces tunnel {old}"),
                _ => {}
            }
            current = tunnel;
        }
        if links.changed().await.is_err() {
            return;
        }
    }
}

/// Returns only an error.
async fn call_again_and_again(
    caller: &Caller<ForwardChannel>,
    every: u64,
    calls: &mut usize,
) -> Result<()> {
    let mut ticks = interval(Duration::from_secs(every));
    // After a suspend, missed calls are not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        let answer = caller.echo(&format!("Still here #{}", *calls + 1)).await?;
        *calls += 1;
        let took = sent.elapsed().as_secs_f64() * 1000.0;
        info!("Received: {answer} ({took:.1} ms)");
    }
}

async fn pass(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}
