//! Tunnels that have reached their maximum age.

use std::time::Duration;

use futures::future::{FutureExt as _, select_all};
use tunnel_conformance::Probe;
use tunnel_server::TunnelServiceHandler;

use crate::drains::{assert_all_finish, calls_in_flight, in_order};
use crate::support::device::{Device, Dial};
use crate::support::{NEVER, eventually, handler, local_device, no_tunnels, ready, served};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn aging() -> TunnelServiceHandler {
    handler(|builder| builder.max_tunnel_age(HOUR).drain_timeout(NEVER))
}

/// Calls go to the old tunnel until the new one takes calls.
#[tokio::test(start_paused = true)]
async fn an_old_tunnel_ends_when_its_replacement_takes_calls() {
    let handler = aging();
    let old = local_device(&handler, "device-7").await;
    let channel = handler.key_as_channel("device-7");
    let calls = calls_in_flight(&channel, &old).await;
    old.tunnel.draining().await;
    assert!(old.is(served(&channel, "meanwhile").await.tunnel()));
    assert!(channel.is_ready());

    let new = local_device(&handler, "device-7").await;
    eventually(|| channel.tunnels().len() == 1).await;
    assert!(new.is(served(&channel, "afterwards").await.tunnel()));
    old.probe.open("go on");
    assert_all_finish(calls).await;
    assert!(in_order(&old.closed().await));
}

#[tokio::test(start_paused = true)]
async fn an_old_tunnel_ends_also_without_a_replacement() {
    let handler = aging();
    let device = local_device(&handler, "device-7").await;
    assert!(in_order(&device.closed().await));
    no_tunnels(&handler).await;
}

/// A device without drain notices cannot be asked to open another tunnel.
#[tokio::test(start_paused = true)]
async fn an_old_tunnel_without_drain_notices_is_drained_at_once() {
    let handler = aging();
    let dial = Dial::new(&Probe::default()).named("deaf").deaf();
    let device = dial.dial(handler.service()).await.expect("accepted");
    ready(&handler, &device).await;
    let channel = handler.key_as_channel("deaf");
    let calls = calls_in_flight(&channel, &device).await;
    // No event reports this drain, so the test waits.
    tokio::time::sleep(2 * HOUR).await;
    assert!(!channel.is_ready());
    device.probe.open("go on");
    assert_all_finish(calls).await;
    device.closed().await;
}

/// Tunnels opened together are not replaced together.
#[tokio::test(start_paused = true)]
async fn tunnels_of_one_age_do_not_end_together() {
    let handler = aging();
    let mut devices = Vec::new();
    for number in 0..20 {
        devices.push(local_device(&handler, &format!("device-{number}")).await);
    }
    let drain = |device: &Device| {
        let tunnel = device.tunnel.clone();
        async move { tunnel.draining().await }.boxed()
    };
    select_all(devices.iter().map(drain)).await;
    let drained = devices
        .iter()
        .filter(|&d| drain(d).now_or_never().is_some());
    assert!(drained.count() < 10);
}
