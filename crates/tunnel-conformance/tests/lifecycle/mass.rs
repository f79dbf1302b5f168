//! Many devices that lose their gateway at once.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tunnel_client::{Backoff, LinkState, LinksHandle};
use tunnel_conformance::{FaultProxy, Probe};

use crate::support::{Gateway, assert_usable, device, guarded};

const DEVICES: usize = 100;

/// The first step of the backoff. The devices' attempts should be spread over it.
const STEP: Duration = Duration::from_secs(2);

/// Waits until a device has lost its gateway. Returns the wait before its next attempt.
async fn planned(handle: &LinksHandle) -> Duration {
    let mut links = handle.watch();
    let backing_off =
        links.wait_for(|links| matches!(links[0].state(), LinkState::BackingOff { .. }));
    let link = backing_off.await.expect("it runs")[0].clone();
    let LinkState::BackingOff { until, .. } = link.state() else {
        unreachable!("waited for")
    };
    until.saturating_duration_since(Instant::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_devices_come_back_spread_over_their_first_step() {
    guarded(async {
        let probe = Probe::default();
        let gateway = Gateway::start().await;
        let network = FaultProxy::to(gateway.address).await;
        let backoff = Backoff::default()
            .initial(STEP)
            .cap(STEP)
            .healthy_after(Duration::ZERO);
        let mut running = Vec::new();
        let mut handles = Vec::new();
        for number in 0..DEVICES {
            let server = device(&format!("device-{number}"), network.endpoint(), &probe);
            let server = server.backoff(backoff.clone()).build();
            handles.push(server.handle());
            running.push(tokio::spawn(server.run()));
        }
        gateway.has(DEVICES).await;
        let before = network.accepted();

        let lost_at = Instant::now();
        // The gateway is unreachable until every device's wait was read. Otherwise a short wait
        // could end unseen, in a new tunnel.
        network.set_target(None);
        network.reset();
        let planned = join_all(handles.iter().map(planned)).await;
        // The waits are distributed evenly. A hundred of them leave some tenth of the step empty
        // once in 4,000 runs, and practically never three.
        let mut tenths = [0; 10];
        for wait in &planned {
            let tenth = wait.as_nanos() * 10 / STEP.as_nanos();
            tenths[(tenth as usize).min(9)] += 1;
        }
        let used = tenths.iter().filter(|&&n| n > 0).count();
        let largest = tenths.iter().max().copied().unwrap_or_default();
        println!("devices by tenths of the step, as planned: {tenths:?}");
        assert!(used >= 7 && largest < DEVICES / 3, "{tenths:?}");

        network.set_target(Some(gateway.address));
        gateway.has(DEVICES).await;
        let arrivals = network.arrivals();
        let seen: Vec<_> = arrivals[before..].iter().map(|at| *at - lost_at).collect();
        println!(
            "and as they came: from {:?} to {:?}",
            seen.iter().min(),
            seen.iter().max()
        );
        assert!(seen.len() >= DEVICES);
        assert_usable(&gateway.client("device-0")).await;
        assert_usable(&gateway.client("device-99")).await;
        for device in running {
            device.abort();
        }
    })
    .await;
}
