//! The spread of a return that a gateway has told, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Status;
use tunnel_client::Backoff;

use crate::support::Running;
use crate::virtual_time::{Local, ROUNDING, SECOND, guarded};

/// The device loses its tunnel this many times.
const LOSSES: usize = 60;

#[tokio::test(start_paused = true)]
async fn a_device_returns_within_the_spread_that_its_gateway_has_told() {
    guarded(async {
        let told = |_| 20 * SECOND;
        let mut gateway = Local::with(|builder| builder.return_spread(told), || Ok(()));
        // The tunnels are lost before anything is told but at their opening.
        let backoff = Backoff::default().healthy_after(Duration::ZERO);
        let _device = Running::start(gateway.device().backoff(backoff).build());
        let waits = gateway.waits_after_tunnels(Duration::ZERO, LOSSES).await;
        let longest = waits.iter().max().expect("some");
        // By chance this fails once in 10^18 runs.
        assert!(*longest > 10 * SECOND, "{longest:?}");
        assert!(*longest <= 20 * SECOND + ROUNDING, "{longest:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_device_with_another_tunnel_takes_up_to_ten_times_as_long() {
    guarded(async {
        let told = |_| 20 * SECOND;
        let mut gateway = Local::with(|builder| builder.return_spread(told), || Ok(()));
        let mut other = Local::new(|| Ok(()));
        let builder = gateway.device().gateway(other.gateway());
        let _device = Running::start(builder.build());
        other.opened().await;
        let waits = gateway.waits_after_tunnels(11 * SECOND, LOSSES).await;
        let longest = waits.iter().max().expect("some");
        // By chance this fails once in 10^18 runs.
        assert!(*longest > 100 * SECOND, "{longest:?}");
        assert!(*longest <= 200 * SECOND + ROUNDING, "{longest:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_open_tunnel_is_told_again_and_the_latest_value_counts() {
    guarded(async {
        let spread = Arc::new(AtomicU64::new(0));
        let told = spread.clone();
        let told = move |_| Duration::from_secs(told.load(Ordering::Relaxed));
        let mut gateway = Local::with(|builder| builder.return_spread(told), || Ok(()));
        let _device = Running::start(gateway.device().build());
        gateway.asked().await;
        let mut longest = Duration::ZERO;
        for _ in 0..LOSSES {
            let tunnel = gateway.opened().await;
            spread.store(300, Ordering::Relaxed);
            // It is told each minute, from some second of it on.
            sleep(121 * SECOND).await;
            // For the next opening.
            spread.store(0, Ordering::Relaxed);
            tunnel.close_with(Status::aborted("kicked"));
            let kicked = Instant::now();
            longest = longest.max(gateway.asked().await - kicked);
        }
        assert!(longest > 100 * SECOND, "{longest:?}");
        assert!(longest <= 300 * SECOND + ROUNDING, "{longest:?}");
    })
    .await;
}

/// Nothing is lost then, so nothing has to wait.
#[tokio::test(start_paused = true)]
async fn a_single_tunnel_that_its_gateway_drains_is_replaced_at_once() {
    guarded(async {
        let told = |_| 600 * SECOND;
        let mut gateway = Local::with(|builder| builder.return_spread(told), || Ok(()));
        let _device = Running::start(gateway.device().build());
        gateway.asked().await;
        for _ in 0..5 {
            let tunnel = gateway.opened().await;
            sleep(11 * SECOND).await;
            let told = Instant::now();
            tunnel.drain(Duration::MAX).await;
            assert_eq!(gateway.asked().await, told);
        }
    })
    .await;
}

/// The devices of a gateway that drains all its tunnels would meet at the next instance.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_drains_all_tunnels_spreads_the_return_of_its_devices() {
    guarded(async {
        let told = |_| 20 * SECOND;
        let gateway = Local::with(|builder| builder.return_spread(told), || Ok(()));
        let builder = gateway.device().tunnels_per_gateway(LOSSES);
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        sleep(11 * SECOND).await;
        let drained = Instant::now();
        gateway.handler.drain(Duration::MAX).await;
        device.until(0, |status| !status.is_connected()).await;
        // The first attempt of each link is refused, as is the second of some.
        let attempts = || {
            device
                .handle
                .links()
                .iter()
                .map(|l| l.attempts())
                .collect::<Vec<_>>()
        };
        let mut first = Vec::new();
        while first.len() < LOSSES {
            sleep(SECOND / 10).await;
            let made = attempts().iter().filter(|&&made| made > 1).count();
            first.resize(made, drained.elapsed());
        }
        let longest = first.last().expect("some");
        assert!(*longest > 10 * SECOND, "{longest:?}");
        assert!(*longest <= 21 * SECOND, "{longest:?}");
    })
    .await;
}

/// A herd that is larger than the gateway admits at once.
#[tokio::test(start_paused = true)]
async fn refused_devices_come_back_when_there_is_room() {
    const DEVICES: usize = 200;
    guarded(async {
        let admit = |_| async {
            sleep(SECOND / 2).await;
            Ok(())
        };
        let gateway = Local::with(
            |builder| builder.max_openings_at_once(20).admit(admit),
            || Ok(()),
        );
        let builder = gateway.device().tunnels_per_gateway(DEVICES);
        let device = Running::start(builder.build());
        let begun = Instant::now();
        assert_eq!(device.handle.all_connected().await, Ok(()));
        // It takes 5 s at the least. With the backoff alone each device would try about as often.
        assert!(begun.elapsed() >= 5 * SECOND);
        assert!(begun.elapsed() < 90 * SECOND, "{:?}", begun.elapsed());
        let links = device.handle.links();
        let attempts: u64 = links.iter().map(|link| link.attempts()).sum();
        assert!(attempts > DEVICES as u64, "some were refused");
        assert!(attempts < 5 * DEVICES as u64, "{attempts}");
    })
    .await;
}
