//! Stopping a device.

use std::time::Duration;

use tonic::Code;
use tunnel_client::{EndReason, LinkState, LinkStatus, StopReason};
use tunnel_conformance::Kind;
use tunnel_conformance::client::run;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;

use crate::support::{
    LongCall, NEVER, Running, TestGateway, assert_usable, client_of, device, eventually, guarded,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_device_finishes_its_calls_takes_no_new_ones_and_does_not_come_back() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, probe) = device(gateway.endpoint());
        let device = Running::start(builder.tunnels_per_gateway(2).build());
        let tunnels = gateway.has(2).await;
        let call = LongCall::begin(&client_of(&tunnels[0]), &probe, "in flight").await;

        let handle = device.handle.clone();
        let draining = tokio::spawn(async move { handle.drain(NEVER).await });
        // After the drain notice the gateway sends no more calls, although one is still in flight.
        gateway.has(0).await;
        let script = Script::named("refused").echo_all();
        let client = client_of(&tunnels[0]);
        let refused = run(&client, Kind::Unary, &script, vec![request(1, 1)]);
        refused.await.expect_failure(Code::Unavailable);
        // The tunnel without calls has ended.
        let mut links = device.handle.watch();
        let one_is_left = |links: &Vec<LinkStatus>| {
            let states = || links.iter().map(LinkStatus::state);
            states().any(|state| matches!(state, LinkState::Stopped(StopReason::Drained)))
                && states().any(|state| matches!(state, LinkState::Draining))
        };
        let seen = links.wait_for(one_is_left).await;
        drop(seen.expect("the handle lives"));
        assert!(!draining.is_finished());

        call.finish().await.expect_success();
        draining.await.expect("it does not panic");
        device.ends_with(StopReason::Drained).await;
        for tunnel in tunnels {
            let reason = tunnel.closed().await;
            // The second reason occurs if the end arrives before the last answer was read.
            let in_order = matches!(reason, EndReason::PeerDrained | EndReason::PeerClosed);
            assert!(in_order, "{reason}");
        }
        gateway.is_left().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_drain_ends_what_is_in_flight() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, probe) = device(gateway.endpoint());
        let device = Running::start(builder.build());
        gateway.has(1).await;
        let call = LongCall::begin(&gateway.client(), &probe, "cut").await;
        device.handle.drain(Duration::from_millis(10)).await;
        call.outcome().await.expect_failure(Code::Unavailable);
        probe.dropped("cut").await;
        device.ends_with(StopReason::Drained).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_drain_and_a_close_bring_the_end_forward() {
    guarded(async {
        for close in [false, true] {
            let gateway = TestGateway::start().await;
            let (builder, probe) = device(gateway.endpoint());
            let device = Running::start(builder.build());
            gateway.has(1).await;
            let call = LongCall::begin(&gateway.client(), &probe, "cut").await;
            let handle = device.handle.clone();
            let draining = tokio::spawn(async move { handle.drain(Duration::MAX).await });
            device
                .state(0, |state| matches!(state, LinkState::Draining))
                .await;
            if close {
                device.handle.close().await;
            } else {
                device.handle.drain(Duration::ZERO).await;
            }
            call.outcome().await.expect_failure(Code::Unavailable);
            draining.await.expect("it does not panic");
            // The first reason wins.
            device.ends_with(StopReason::Drained).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_stops_from_whatever_it_is_doing() {
    guarded(async {
        let silent = TestGateway::start_with(|b| b.admit(|_| std::future::pending())).await;
        let gone = TestGateway::start().await;
        let gone_endpoint = gone.endpoint();
        drop(gone);
        let backoff = crate::support::no_waits().initial(NEVER).cap(NEVER);
        for close in [false, true] {
            let (builder, _) = device(silent.endpoint());
            let builder = builder.gateway(gone_endpoint.clone());
            let device = Running::start(builder.backoff(backoff.clone()).build());
            device
                .state(0, |state| matches!(state, LinkState::Connecting))
                .await;
            device
                .state(1, |state| matches!(state, LinkState::BackingOff { .. }))
                .await;
            if close {
                device.handle.close().await;
                device.ends_with(StopReason::Closed).await;
            } else {
                device.handle.drain(NEVER).await;
                device.ends_with(StopReason::Drained).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_stopped_before_it_ran_does_not_run() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let server = device(gateway.endpoint()).0.build();
        let handle = server.handle();
        handle.close().await;
        let stopped = handle.connected().await.expect_err("it has stopped");
        assert_eq!(stopped.reason(), StopReason::Closed);
        assert_eq!(server.run().await, StopReason::Closed);
        assert_eq!(handle.stopped().await, StopReason::Closed);
        eventually(|| gateway.handler.tunnels().is_empty()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_replaces_an_old_tunnel_before_it_drains_it() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, probe) = device(gateway.endpoint());
        let device = Running::start(builder.max_tunnel_age(Duration::from_millis(300)).build());
        let first = gateway.has(1).await.remove(0);
        let call = LongCall::begin(&client_of(&first), &probe, "in the old one").await;
        // The device always has a tunnel.
        let channel = gateway.handler.as_channel();
        while first.is_ready() {
            assert!(channel.is_ready());
            tokio::task::yield_now().await;
        }
        assert_usable(&gateway.client()).await;
        call.finish().await.expect_success();
        drop(device);
    })
    .await;
}
