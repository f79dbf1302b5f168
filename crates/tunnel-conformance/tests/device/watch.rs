//! The observable state of a device.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tonic::Status;
use tunnel_client::{LinkState, StopReason};

use crate::support::{LongCall, NEVER, Running, TestGateway, device, guarded, no_waits};

/// Each state is held until the test has seen it, because a watcher sees only the last of several
/// changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_seen_in_all_its_states() {
    guarded(async {
        let admitted = Arc::new(Semaphore::new(0));
        let admission = admitted.clone();
        let gateway = TestGateway::start_with(|builder| {
            builder.admit(move |_| {
                let admission = admission.clone();
                async move {
                    let admitted = admission.acquire().await.expect("never closed");
                    admitted.forget();
                    Ok(())
                }
            })
        })
        .await;
        let (builder, probe) = device(gateway.endpoint());
        let backoff = no_waits().refused_cap(NEVER);
        let device = Running::start(builder.backoff(backoff).build());

        let status = device
            .until(0, |status| {
                matches!(status.state(), LinkState::Connecting) && status.attempts() == 1
            })
            .await;
        assert!(!status.is_connected());
        assert!(status.last_down_reason().is_none());
        assert_eq!(status.index(), 0);

        admitted.add_permits(1);
        let status = device.until(0, |status| status.is_connected()).await;
        let LinkState::Connected(info) = status.state() else {
            panic!("{status:?}");
        };
        assert_eq!(info.id(), device.handle.tunnels()[0].id());

        // The tunnel drains, and the next attempt is refused.
        let tunnel = gateway.has(1).await.remove(0);
        let call = LongCall::begin(&gateway.client(), &probe, "in flight").await;
        let drained = tunnel.clone();
        let draining = tokio::spawn(async move { drained.drain(NEVER).await });
        let status = device
            .until(0, |status| matches!(status.state(), LinkState::Draining))
            .await;
        assert!(!status.is_connected());
        call.finish().await.expect_success();
        draining.await.expect("it does not panic");

        admitted.add_permits(1);
        device.until(0, |status| status.is_connected()).await;
        gateway.has(1).await[0].close_with(Status::permission_denied("revoked"));
        device
            .state(0, |state| {
                matches!(state, LinkState::BackingOff { refused: true, .. })
            })
            .await;

        device.handle.drain(NEVER).await;
        device.ends_with(StopReason::Drained).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_connection_fails_when_the_device_stops() {
    guarded(async {
        let silent = TestGateway::start_with(|b| b.admit(|_| std::future::pending())).await;
        let device = Running::start(device(silent.endpoint()).0.build());
        let handle = device.handle.clone();
        let waiting =
            tokio::spawn(async move { (handle.connected().await, handle.all_connected().await) });
        device.handle.close().await;
        let told = waiting.await.expect("it does not panic");
        for told in [told.0, told.1] {
            let stopped = told.expect_err("it has stopped");
            assert_eq!(stopped.reason(), StopReason::Closed);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_run_yet_is_not_connected() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let server = device(gateway.endpoint()).0.build();
        let handle = server.handle();
        assert!(handle.connected().now_or_never().is_none());
        assert!(handle.all_connected().now_or_never().is_none());
        assert!(handle.stopped().now_or_never().is_none());
        let device = Running::start(server);
        assert_eq!(handle.all_connected().await, Ok(()));
        drop(device);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_shows_the_counters_of_the_tunnels() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, probe) = device(gateway.endpoint());
        let device = Running::start(builder.build());
        gateway.has(1).await;
        let call = LongCall::begin(&gateway.client(), &probe, "counted").await;
        let (id, stats) = device.handle.stats()[0];
        assert_eq!(id, device.handle.tunnels()[0].id());
        assert_eq!(stats.streams, 1);
        call.finish().await.expect_success();
    })
    .await;
}
