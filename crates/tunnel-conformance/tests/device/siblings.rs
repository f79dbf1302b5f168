//! Siblings of a gateway that drains: the device has a tunnel there before it loses its own.

use std::time::Duration;

use tunnel_client::{Gateway, LinkState};

use crate::support::{
    LongCall, NEVER, Running, TestGateway, assert_usable, client_of, device, eventually, guarded,
    no_waits,
};

impl TestGateway {
    fn uri(&self) -> http::Uri {
        self.endpoint().uri().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_a_tunnel_at_a_sibling_before_its_own_ends() {
    guarded(async {
        let home = TestGateway::start().await;
        let other = TestGateway::start().await;
        let gateway = Gateway::from(home.endpoint()).follow_siblings(true);
        let (builder, probe) = device(gateway);
        let device = Running::start(builder.build());
        let own = home.has(1).await.remove(0);
        let call = LongCall::begin(&home.client(), &probe, "at home").await;
        home.handler.set_siblings([other.uri()]);
        home.handler.retire(Duration::ZERO);
        let fallback = other.has(1).await.remove(0);
        let status = device
            .until(0, |status| status.fallback_tunnel().is_some())
            .await;
        let shown = status.fallback_tunnel().expect("just seen").gateway();
        assert_eq!(shown, format!("http://{}", other.server.address()));
        // The old tunnel takes calls until it is drained.
        assert_usable(&client_of(&own)).await;
        assert_usable(&client_of(&fallback)).await;
        let handler = home.handler.clone();
        let draining = tokio::spawn(async move { handler.drain(NEVER).await });
        call.finish().await.expect_success();
        draining.await.expect("it does not panic");
        assert_usable(&other.client()).await;
        assert!(device.handle.links()[0].is_connected());
    })
    .await;
}

/// A rolling restart: the sibling drains too, and tells its own sibling.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_that_drains_leads_on_to_the_next() {
    guarded(async {
        let gateways = TestGateway::three().await;
        let [first, second, third] = &gateways;
        let gateway = Gateway::from(first.endpoint()).follow_siblings(true);
        let (builder, _) = device(gateway);
        let _device = Running::start(builder.build());
        first.has(1).await;
        first.handler.set_siblings([second.uri()]);
        first.handler.drain(NEVER).await;
        second.has(1).await;
        second.handler.set_siblings([third.uri()]);
        second.handler.drain(NEVER).await;
        third.has(1).await;
        assert_usable(&third.client()).await;
    })
    .await;
}

/// Otherwise the device would wait for its primary, which a sibling was expected to stand in for.
#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_dialled_soon_if_no_sibling_accepts() {
    guarded(async {
        let told = |_| NEVER;
        let home = TestGateway::start_with(|builder| builder.return_spread(told)).await;
        let gone = TestGateway::start().await;
        let nobody = gone.uri();
        drop(gone);
        let gateway = Gateway::from(home.endpoint()).follow_siblings(true);
        let (builder, _) = device(gateway);
        let device = Running::start(builder.build());
        let own = home.has(1).await.remove(0);
        home.handler.set_siblings([nobody]);
        home.handler.retire(Duration::ZERO);
        // More than one attempt at the sibling, and the primary refuses.
        device
            .state(0, |state| matches!(state, LinkState::BackingOff { .. }))
            .await;
        assert!(own.is_ready());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_are_ignored_without_tls_unless_the_device_is_set_to_follow_them() {
    guarded(async {
        let home = TestGateway::start().await;
        let other = TestGateway::start().await;
        let (builder, _) = device(home.endpoint());
        let device = Running::start(builder.build());
        home.has(1).await;
        home.handler.set_siblings([other.uri()]);
        home.handler.drain(NEVER).await;
        // The only gateway is dialled again and again.
        device.until(0, |status| status.attempts() > 5).await;
        assert!(other.handler.tunnels().is_empty());
        assert!(device.handle.links()[0].fallback_tunnel().is_none());
    })
    .await;
}

/// A device with two gateways goes where it has no tunnel yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_that_the_device_has_a_tunnel_to_comes_last() {
    guarded(async {
        let gateways = TestGateway::three().await;
        let [first, second, third] = &gateways;
        let (builder, _) = device(Gateway::from(first.endpoint()).follow_siblings(true));
        let backoff = no_waits().initial(NEVER).cap(NEVER);
        let builder = builder.gateway(second.endpoint()).backoff(backoff);
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        // In random order the third would seldom be first.
        let siblings = std::iter::repeat_n(second.uri(), 15).chain([third.uri()]);
        first.handler.set_siblings(siblings);
        first.handler.drain(NEVER).await;
        third.has(1).await;
        eventually(|| second.handler.tunnels().len() == 1).await;
    })
    .await;
}
