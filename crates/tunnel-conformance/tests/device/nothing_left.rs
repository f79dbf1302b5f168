//! An ended device leaves no task and no connection behind.

use tokio::runtime::Handle;
use tunnel_client::{LinkState, StopReason};
use tunnel_conformance::FaultProxy;

use crate::support::{
    LongCall, NEVER, Running, TestGateway, client_of, device, eventually, guarded,
};

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_serve_future_closes_the_tunnel_and_leaves_nothing() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let link = FaultProxy::to(gateway.server.address()).await;
        // The proxy's own tasks are not counted.
        let before = tasks();
        let (builder, probe) = device(link.endpoint());
        let server = builder.build();
        {
            let serving = server.serve();
            let calling = async {
                gateway.has(1).await;
                LongCall::begin(&gateway.client(), &probe, "cut").await
            };
            tokio::select! {
                reason = serving => panic!("{reason:?}"),
                call = calling => drop(call),
            }
        }
        probe.dropped("cut").await;
        gateway.is_left().await;
        link.wait_open(0).await;
        eventually(|| tasks() <= before).await;
        assert!(server.handle().tunnels().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_run_future_closes_all_tunnels_and_leaves_nothing() {
    guarded(async {
        let [home, other] = [TestGateway::start().await, TestGateway::start().await];
        let silent = TestGateway::start_with(|b| b.admit(|_| std::future::pending())).await;
        let links = [
            FaultProxy::to(home.server.address()).await,
            FaultProxy::to(other.server.address()).await,
            FaultProxy::to(silent.server.address()).await,
        ];
        let before = tasks();
        let (builder, probe) = device(links[0].endpoint());
        let builder = builder
            .gateway(links[1].endpoint())
            .gateway(links[2].endpoint());
        let device = Running::start(builder.build());
        // The links are in different states: connected, draining with a fallback, and connecting.
        let tunnel = home.has(1).await.remove(0);
        let own_of_other = other.has(1).await.remove(0);
        let call = LongCall::begin(&client_of(&tunnel), &probe, "draining").await;
        let handler = home.handler.clone();
        let draining = tokio::spawn(async move { handler.drain(NEVER).await });
        let fallback = other.has_another_than(&own_of_other).await;
        let fallback_call = LongCall::begin(&client_of(&fallback), &probe, "fallback").await;
        device
            .state(2, |state| matches!(state, LinkState::Connecting))
            .await;

        device.task.abort();
        for call in [call, fallback_call] {
            call.outcome()
                .await
                .expect_failure(tonic::Code::Unavailable);
        }
        draining.await.expect("it does not panic");
        home.is_left().await;
        other.is_left().await;
        for link in &links {
            link.wait_open(0).await;
        }
        assert_eq!(device.handle.stopped().await, StopReason::Dropped);
        let stopped = |state: &LinkState| matches!(state, LinkState::Stopped(StopReason::Dropped));
        for link in 0..3 {
            device.state(link, stopped).await;
        }
        assert!(device.handle.tunnels().is_empty());
        drop(device);
        eventually(|| tasks() <= before).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_without_having_run_wakes_its_waiters() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let server = device(gateway.endpoint()).0.build();
        let handle = server.handle();
        drop(server);
        let stopped = handle.connected().await.expect_err("it has stopped");
        assert_eq!(stopped.reason(), StopReason::Dropped);
    })
    .await;
}

/// Covers every way to start and end a device.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_piles_up_while_tunnels_come_and_go() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let link = FaultProxy::to(gateway.server.address()).await;
        let before = tasks();
        let device = Running::start(device(link.endpoint()).0.build());
        let mut tunnel = gateway.has(1).await.remove(0);
        for round in 0..20 {
            match round % 4 {
                0 => tunnel.close_with(tonic::Status::aborted("kicked")),
                1 => link.reset(),
                2 => link.cut(),
                _ => {
                    tunnel.drain(NEVER).await;
                }
            }
            tunnel = gateway.has_another_than(&tunnel).await;
        }
        device.handle.close().await;
        device.ends_with(StopReason::Closed).await;
        gateway.is_left().await;
        link.wait_open(0).await;
        eventually(|| tasks() <= before).await;
    })
    .await;
}
