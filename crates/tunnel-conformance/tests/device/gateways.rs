//! Gateways that are added and removed while a device runs.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tunnel_client::{Gateway, LinkState, LinkStatus, StopReason};
use tunnel_conformance::FaultProxy;

use crate::support::{
    LongCall, NEVER, Running, TestGateway, assert_usable, client_of, device, eventually, guarded,
    no_waits,
};

fn named(gateway: &TestGateway, name: &str) -> Gateway {
    Gateway::from(gateway.endpoint()).name(name)
}

/// The gateways of the links, in order.
fn shown(device: &Running) -> Vec<String> {
    let links = device.handle.links();
    links.iter().map(|l| l.gateway().to_owned()).collect()
}

/// A gateway that admits a tunnel for each permit.
async fn guarded_gateway(permits: usize) -> (TestGateway, Arc<Semaphore>) {
    let admitted = Arc::new(Semaphore::new(permits));
    let admission = admitted.clone();
    let gateway = TestGateway::start_with(|builder| {
        builder.admit(move |_| {
            let admission = admission.clone();
            async move {
                admission.acquire().await.expect("never closed").forget();
                Ok(())
            }
        })
    });
    (gateway.await, admitted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_added_at_run_time_gets_its_links() {
    guarded(async {
        let [first, second] = [TestGateway::start().await, TestGateway::start().await];
        let builder = device(named(&first, "first")).0.tunnels_per_gateway(2);
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        device
            .handle
            .add_gateway(named(&second, "second"))
            .expect("it runs");
        // Its links are shown at once.
        assert_eq!(shown(&device), ["first", "first", "second", "second"]);
        assert_eq!(device.handle.all_connected().await, Ok(()));
        first.has(2).await;
        second.has(2).await;
        assert_usable(&second.client()).await;
        device.handle.drain(NEVER).await;
        device.ends_with(StopReason::Drained).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_gateway_keeps_its_tunnel_until_another_gateway_has_one() {
    guarded(async {
        let old = TestGateway::start().await;
        let (new, admitted) = guarded_gateway(0).await;
        let (builder, probe) = device(named(&old, "old"));
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let tunnel = old.has(1).await.remove(0);
        let call = LongCall::begin(&old.client(), &probe, "at the old one").await;

        let new_one = named(&new, "new");
        device.handle.add_gateway(new_one).expect("it runs");
        assert!(device.handle.remove_gateway("old"));
        device.until(1, |status| status.attempts() > 0).await;
        assert!(tunnel.is_ready());
        assert_usable(&old.client()).await;

        admitted.add_permits(1);
        new.has(1).await;
        old.has(0).await;
        assert_usable(&new.client()).await;
        // The links of removed gateways are not waited for.
        assert_eq!(device.handle.all_connected().await, Ok(()));
        call.finish().await.expect_success();
        old.is_left().await;
        eventually(|| shown(&device) == ["new"]).await;
        device.handle.drain(NEVER).await;
        device.ends_with(StopReason::Drained).await;
    })
    .await;
}

/// The gateway is removed while it drains: its sibling has the only tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn the_tunnel_at_a_sibling_of_a_removed_gateway_is_kept_until_another_gateway_has_one() {
    guarded(async {
        let [old, sibling] = [TestGateway::start().await, TestGateway::start().await];
        let (new, admitted) = guarded_gateway(0).await;
        let (builder, probe) = device(named(&old, "old").follow_siblings(true));
        let device = Running::start(builder.build());
        old.has(1).await;
        let uri = sibling.endpoint().uri().clone();
        old.handler.set_siblings([uri]);
        old.handler.drain(NEVER).await;
        let tunnel = sibling.has(1).await.remove(0);
        let call = LongCall::begin(&sibling.client(), &probe, "at the sibling").await;

        let new_one = named(&new, "new");
        device.handle.add_gateway(new_one).expect("it runs");
        assert!(device.handle.remove_gateway("old"));
        device.until(1, |status| status.attempts() > 0).await;
        sleep(Duration::from_millis(50)).await;
        assert!(tunnel.is_ready());
        assert_usable(&sibling.client()).await;

        admitted.add_permits(1);
        new.has(1).await;
        sibling.has(0).await;
        assert_usable(&new.client()).await;
        call.finish().await.expect_success();
        sibling.is_left().await;
        eventually(|| shown(&device) == ["new"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tunnel_of_a_removed_gateway_is_replaced_before_it_is_drained() {
    guarded(async {
        let old = TestGateway::start().await;
        let (new, admitted) = guarded_gateway(0).await;
        let builder = device(named(&old, "old")).0.tunnels_per_gateway(2);
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        old.has(2).await;
        device
            .handle
            .add_gateway(named(&new, "new"))
            .expect("it runs");
        device.handle.remove_gateway("old");
        for replaced in 1..=2 {
            admitted.add_permits(1);
            new.has(replaced).await;
            old.has(2 - replaced).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_gateways_goes_on_and_can_be_given_another() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let before = Handle::current().metrics().num_alive_tasks();
        let device = Running::start(device(named(&gateway, "home")).0.build());
        for _ in 0..3 {
            assert_eq!(device.handle.all_connected().await, Ok(()));
            gateway.has(1).await;
            assert_usable(&gateway.client()).await;
            assert!(device.handle.remove_gateway("home"));
            assert!(!device.handle.remove_gateway("home"));
            gateway.is_left().await;
            eventually(|| device.handle.links().is_empty()).await;
            assert!(device.handle.all_connected().now_or_never().is_none());
            device
                .handle
                .add_gateway(named(&gateway, "home"))
                .expect("it runs");
        }
        device.handle.remove_gateway("home");
        eventually(|| device.handle.links().is_empty()).await;
        assert!(!device.task.is_finished());
        device.handle.drain(NEVER).await;
        let stopped = device.handle.add_gateway(gateway.endpoint());
        let stopped = stopped.expect_err("it has stopped");
        assert_eq!(stopped.reason(), StopReason::Drained);
        assert!(device.handle.links().is_empty());
        device.ends_with(StopReason::Drained).await;
        gateway.is_left().await;
        eventually(|| Handle::current().metrics().num_alive_tasks() <= before).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_gateway_without_a_tunnel_is_not_dialled_again() {
    guarded(async {
        let home = TestGateway::start().await;
        let away = FaultProxy::to(home.server.address()).await;
        away.set_target(None);
        let silent = TestGateway::start_with(|b| b.admit(|_| std::future::pending())).await;
        let (builder, _) = device(named(&home, "home"));
        let builder = builder
            .gateway(Gateway::from(away.endpoint()).name("away"))
            .gateway(named(&silent, "silent"));
        let device = Running::start(builder.build());
        away.wait_accepted(3).await;
        device
            .state(2, |state| matches!(state, LinkState::Connecting))
            .await;
        assert!(device.handle.remove_gateway("away"));
        assert!(device.handle.remove_gateway("silent"));
        eventually(|| shown(&device) == ["home"]).await;
        let dialled = away.accepted();
        let tunnel = home.has(1).await.remove(0);
        tunnel.close_with(tonic::Status::aborted("another round"));
        home.has_another_than(&tunnel).await;
        assert_usable(&home.client()).await;
        assert_eq!(away.accepted(), dialled);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_added_and_removed_before_a_device_runs() {
    guarded(async {
        let [first, second] = [TestGateway::start().await, TestGateway::start().await];
        let server = device(named(&first, "first")).0.build();
        let handle = server.handle();
        handle
            .add_gateway(named(&second, "second"))
            .expect("not stopped");
        assert!(handle.remove_gateway("first"));
        assert!(handle.links().is_empty());
        let device = Running::start(server);
        second.has(1).await;
        assert_eq!(shown(&device), ["second"]);
        assert!(first.handler.tunnels().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_one_tunnel_without_any_gateway_is_an_error() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let server = device(named(&gateway, "home")).0.build();
        assert!(server.handle().remove_gateway("home"));
        let error = server.serve().await.expect_err("there is no gateway");
        assert!(error.to_string().contains("there is no gateway"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_tunnel_to_a_removed_gateway_moves_to_another() {
    guarded(async {
        let gateways = TestGateway::three().await;
        let [first, second, third] = &gateways;
        let (builder, probe) = device(named(first, "first"));
        let builder = builder
            .gateway(named(second, "second"))
            .gateway(named(third, "third"))
            .backoff(no_waits());
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let tunnel = first.has(1).await.remove(0);
        let call = LongCall::begin(&client_of(&tunnel), &probe, "in flight").await;
        let handler = first.handler.clone();
        let draining = tokio::spawn(async move { handler.drain(NEVER).await });
        second.has(2).await;
        let at = |name: &'static str| {
            move |status: &LinkStatus| {
                let fallback = status.fallback_tunnel();
                fallback.is_some_and(|fallback| fallback.gateway() == name)
            }
        };
        device.until(0, at("second")).await;
        assert!(device.handle.remove_gateway("second"));
        device.until(0, at("third")).await;
        second.is_left().await;
        third.has(2).await;
        call.finish().await.expect_success();
        draining.await.expect("it does not panic");
    })
    .await;
}
