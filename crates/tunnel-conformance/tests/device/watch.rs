//! The observable state of a device.

use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tonic::Status;
use tunnel_client::{Gateway, LinkState, StopReason, TunnelEvent};
use tunnel_conformance::testing::assert_usable;

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

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_have_events_of_refusals_openings_and_ends_with_final_counters() {
    guarded(async {
        let admits = Arc::new(Semaphore::new(0));
        let admission = admits.clone();
        let gateway = TestGateway::start_with(|builder| {
            builder.admit(move |_| {
                let admitted = admission.try_acquire().map(|permit| permit.forget());
                async move { admitted.map_err(|_| Status::unavailable("not yet")) }
            })
        })
        .await;
        let (builder, _probe) = device(Gateway::from(gateway.endpoint()).name("home"));
        let server = builder.backoff(no_waits()).build();
        let mut both = [server.handle().events(), gateway.handler.events()];
        let mut open = [
            server.handle().open_tunnels(),
            gateway.handler.open_tunnels(),
        ];
        let device = Running::start(server);
        let mut ids = Vec::new();
        for events in &mut both {
            let Some(TunnelEvent::NotOpened { info, error, .. }) = events.next().await else {
                panic!("a refusal is the first event");
            };
            assert!(error.to_string().contains("not yet"), "{error}");
            ids.push(info.shared_id().to_owned());
        }
        assert_eq!(ids[0], ids[1], "of the same attempt");
        assert_eq!([*open[0].borrow(), *open[1].borrow()], [0, 0]);

        admits.add_permits(1);
        for (events, open) in both.iter_mut().zip(&mut open) {
            open.wait_for(|open| *open == 1).await.expect("it lives");
            let opened = events.filter_map(|event| async move {
                match event {
                    TunnelEvent::Opened(info) => Some(info),
                    _ => None,
                }
            });
            std::pin::pin!(opened).next().await.expect("it opens");
        }
        let tunnel = device.handle.tunnels().remove(0);
        assert_eq!(tunnel.gateway(), Some("home"));
        assert_usable(&gateway.client()).await;
        device.handle.close().await;
        for (events, open) in both.iter_mut().zip(&mut open) {
            open.wait_for(|open| *open == 0).await.expect("it lives");
            let event = events.next().await;
            let Some(TunnelEvent::Closed { info, stats, .. }) = event else {
                panic!("{event:?}");
            };
            assert_eq!(info.shared_id(), tunnel.shared_id());
            assert_eq!((stats.streams_total, stats.streams), (1, 0));
            assert!(stats.bytes_received > 0 && stats.bytes_sent > 0);
        }
    })
    .await;
}
