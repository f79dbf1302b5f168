//! A tunnel that stays open, used now and then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use example_support::caller::Caller;
use example_support::signal::Shutdown;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::info;
use tunnel_client::TunnelChannel;

/// Makes a call every `every` seconds, until Ctrl-C or until `duration` seconds
/// have passed. Notices at once when the tunnel ends, calls or not.
pub(crate) async fn run(
    caller: &Caller<TunnelChannel>,
    tunnel: &TunnelChannel,
    every: u64,
    duration: Option<u64>,
) -> Result<()> {
    let mut stop = Shutdown::watch().context("signals cannot be watched")?;
    let until = duration.map_or("Ctrl-C".into(), |seconds| {
        format!("{seconds} s have passed")
    });
    info!("A call every {every} s, until {until}");
    let start = Instant::now();
    let mut calls = 0;
    let end = tokio::select! {
        biased;
        reason = tunnel.closed() => bail!("the tunnel has ended: {reason}"),
        failed = call_again_and_again(caller, every, &mut calls) => return failed,
        () = stop.requested() => "Ctrl-C",
        () = pass(duration) => "Time is up",
    };
    let seconds = start.elapsed().as_secs_f64();
    info!("{end}: {calls} calls in {seconds:.1} s, all of them answered");
    Ok(())
}

/// Ends only with an error.
async fn call_again_and_again(
    caller: &Caller<TunnelChannel>,
    every: u64,
    calls: &mut usize,
) -> Result<()> {
    let mut ticks = interval(Duration::from_secs(every));
    // A machine that slept has nothing to catch up with.
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
