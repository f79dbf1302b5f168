//! Draining gateways: the device opens a fallback tunnel first and returns to its primary later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataMap;
use tunnel_client::{DownReason, Gateway, LinkState};
use tunnel_conformance::FaultProxy;
use tunnel_server::AcceptedTunnel;

use crate::support::{
    LongCall, NEVER, Running, TestGateway, assert_usable, client_of, device, eventually, guarded,
    no_waits,
};

/// Makes a gateway drain one tunnel with calls in flight, or all of its tunnels.
fn begin_drain(tunnel: &AcceptedTunnel) {
    let tunnel = tunnel.clone();
    tokio::spawn(async move { tunnel.drain(NEVER).await });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_gateway_is_dialled_again_while_the_old_tunnel_finishes() {
    guarded(async {
        let old = TestGateway::start().await;
        let new = TestGateway::start().await;
        // A load balancer sends a new connection to another instance.
        let balancer = FaultProxy::to(old.server.address()).await;
        let (builder, probe) = device(balancer.endpoint());
        let device = Running::start(builder.build());
        let tunnel = old.has(1).await.remove(0);
        let call = LongCall::begin(&old.client(), &probe, "in flight").await;

        balancer.set_target(Some(new.server.address()));
        begin_drain(&tunnel);
        new.has(1).await;
        assert_usable(&new.client()).await;
        assert_eq!(device.handle.tunnels().len(), 2);
        let status = device.until(0, |status| status.is_connected()).await;
        assert!(status.fallback_tunnel().is_none());

        call.finish().await.expect_success();
        old.is_left().await;
        eventually(|| device.handle.tunnels().len() == 1).await;
        assert_eq!(device.handle.links()[0].attempts(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_gateway_refuses_while_it_drains_and_is_waited_for() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let (builder, probe) = device(gateway.endpoint());
        let device = Running::start(builder.build());
        gateway.has(1).await;
        let call = LongCall::begin(&gateway.client(), &probe, "in flight").await;
        let handler = gateway.handler.clone();
        let draining = tokio::spawn(async move { handler.drain(NEVER).await });
        let status = device
            .until(0, |status| {
                status.attempts() > 3 && matches!(status.state(), LinkState::BackingOff { .. })
            })
            .await;
        assert!(matches!(
            status.last_down_reason(),
            Some(DownReason::NotOpened(_))
        ));
        // None of this disturbs the call on the old tunnel.
        call.finish().await.expect_success();
        draining.await.expect("it does not panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_is_the_fallback_until_the_primary_is_back() {
    guarded(async {
        let home = TestGateway::start().await;
        let renewed = TestGateway::start().await;
        let other = TestGateway::start().await;
        let address = FaultProxy::to(home.server.address()).await;
        let (builder, probe) = device(address.endpoint());
        let builder = builder.gateway(other.endpoint());
        let device = Running::start(builder.build());
        home.has(1).await;
        let own_of_other = other.has(1).await.remove(0);
        let call = LongCall::begin(&home.client(), &probe, "at home").await;

        let handler = home.handler.clone();
        let draining = tokio::spawn(async move { handler.drain(NEVER).await });
        // The fallback opens while the old tunnel still serves its call, so there are always two
        // tunnels.
        let fallback = other.has_another_than(&own_of_other).await;
        assert!(!draining.is_finished());
        assert_eq!(device.handle.tunnels().len(), 3);
        let status = device
            .until(0, |status| status.fallback_tunnel().is_some())
            .await;
        assert!(status.is_connected());
        let shown = status.fallback_tunnel().expect("just seen");
        assert_eq!(shown.gateway(), device.handle.links()[1].gateway());
        assert_usable(&client_of(&fallback)).await;
        let fallback_call = LongCall::begin(&client_of(&fallback), &probe, "at the other").await;
        call.finish().await.expect_success();
        draining.await.expect("it does not panic");

        // The device returns to its primary. The fallback takes no more calls and finishes its own.
        address.set_target(Some(renewed.server.address()));
        renewed.has(1).await;
        let status = device
            .until(0, |status| status.fallback_tunnel().is_none())
            .await;
        assert!(
            matches!(status.state(), LinkState::Connected(_)),
            "{status:?}"
        );
        eventually(|| !fallback.is_ready()).await;
        other.has(1).await;
        fallback_call.finish().await.expect_success();
        fallback.closed().await;
        assert_usable(&client_of(&own_of_other)).await;
        assert_usable(&renewed.client()).await;
        eventually(|| device.handle.tunnels().len() == 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_fallback_have_a_deadline_when_the_primary_is_back() {
    guarded(async {
        let home = TestGateway::start().await;
        let other = TestGateway::start().await;
        let address = FaultProxy::to(home.server.address()).await;
        let (builder, probe) = device(address.endpoint());
        let builder = builder
            .gateway(other.endpoint())
            .drain_timeout(Duration::from_millis(10));
        let device = Running::start(builder.build());
        home.has(1).await;
        let own_of_other = other.has(1).await.remove(0);
        address.set_target(None);
        home.handler.drain(NEVER).await;
        let fallback = other.has_another_than(&own_of_other).await;
        let call = LongCall::begin(&client_of(&fallback), &probe, "too long").await;
        let renewed = TestGateway::start().await;
        address.set_target(Some(renewed.server.address()));
        call.outcome()
            .await
            .expect_failure(tonic::Code::Unavailable);
        fallback.closed().await;
        drop(device);
    })
    .await;
}

/// A device with three gateways skips the gateways that it knows to be unavailable.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drains_too_is_passed_over() {
    guarded(async {
        let gateways = TestGateway::three().await;
        let [first, second, third] = &gateways;
        let (builder, probe) = device(first.endpoint());
        let builder = builder
            .gateway(second.endpoint())
            .gateway(third.endpoint())
            .backoff(no_waits().initial(NEVER).cap(NEVER));
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        for gateway in &gateways {
            gateway.has(1).await;
        }
        let calls = [
            LongCall::begin(&first.client(), &probe, "first").await,
            LongCall::begin(&second.client(), &probe, "second").await,
        ];
        begin_drain(&second.has(1).await[0]);
        // The third gateway is next in order.
        third.has(2).await;
        begin_drain(&first.has(1).await[0]);
        // The second gateway is next in order but unavailable, so the third gateway is used.
        third.has(3).await;
        let names: Vec<_> = device
            .handle
            .links()
            .iter()
            .map(|l| l.gateway().to_owned())
            .collect();
        for link in 0..2 {
            let status = device
                .until(link, |status| status.fallback_tunnel().is_some())
                .await;
            assert_eq!(
                status.fallback_tunnel().expect("just seen").gateway(),
                names[2]
            );
        }
        for call in calls {
            call.finish().await.expect_success();
        }
    })
    .await;
}

/// The fallback's gateway drains too, so the device looks for the next gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_that_drains_is_replaced() {
    guarded(async {
        let gateways = TestGateway::three().await;
        let [first, second, third] = &gateways;
        let address = FaultProxy::to(first.server.address()).await;
        let (builder, probe) = device(address.endpoint());
        let builder = builder.gateway(second.endpoint()).gateway(third.endpoint());
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let own_of_second = second.has(1).await.remove(0);
        address.set_target(None);
        first.handler.drain(NEVER).await;
        let fallback = second.has_another_than(&own_of_second).await;
        let call = LongCall::begin(&client_of(&fallback), &probe, "fallback").await;
        // After this drain the second gateway counts as failing.
        begin_drain(&fallback);
        third.has(2).await;
        call.finish().await.expect_success();
        fallback.closed().await;
        device
            .until(0, |status| status.fallback_tunnel().is_some())
            .await;
    })
    .await;
}

/// A failing hook does not count against the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_never_contacted_may_be_a_fallback() {
    guarded(async {
        let home = TestGateway::start().await;
        let other = TestGateway::start().await;
        let (builder, _) = device(Gateway::from(home.endpoint()).name("home"));
        let network = Arc::new(AtomicBool::new(false));
        let has_network = network.clone();
        let builder = builder
            .gateway(other.endpoint())
            .backoff(no_waits().initial(NEVER).cap(NEVER))
            .credentials(move |attempt| {
                let has_network = has_network.load(Ordering::Relaxed);
                async move {
                    match attempt.gateway() {
                        "home" => Ok(MetadataMap::new()),
                        _ if has_network => Ok(MetadataMap::new()),
                        _ => Err(Status::unavailable("no network")),
                    }
                }
            });
        let device = Running::start(builder.build());
        let tunnel = home.has(1).await.remove(0);
        device
            .state(1, |state| matches!(state, LinkState::BackingOff { .. }))
            .await;
        network.store(true, Ordering::Relaxed);
        begin_drain(&tunnel);
        other.has(1).await;
        device
            .until(0, |status| status.fallback_tunnel().is_some())
            .await;
    })
    .await;
}

/// A gateway without drain notices ends its tunnel cleanly instead.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_a_tunnel_cleanly_gets_a_fallback() {
    guarded(async {
        let home = TestGateway::start().await;
        let other = TestGateway::start().await;
        let (builder, _) = device(home.endpoint());
        let builder = builder
            .gateway(other.endpoint())
            .backoff(no_waits().initial(NEVER).cap(NEVER));
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        home.has(1).await[0].close_with(tonic::Status::ok(""));
        other.has(2).await;
        device
            .until(0, |status| status.fallback_tunnel().is_some())
            .await;
    })
    .await;
}
