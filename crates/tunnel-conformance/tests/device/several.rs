//! Several tunnels to one gateway, and tunnels to several gateways.

use std::collections::HashSet;
use std::time::Duration;

use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{FaultProxy, TestChannel};

use crate::support::{Running, TestGateway, assert_usable, client_of, device, eventually, guarded};

#[tokio::test(flavor = "multi_thread")]
async fn several_tunnels_to_one_gateway_are_kept_up_each_for_itself() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let builder = device(gateway.endpoint()).0.tunnels_per_gateway(3);
        let device = Running::start(builder.build());
        assert_eq!(device.handle.all_connected().await, Ok(()));
        let before = gateway.has(3).await;
        for tunnel in &before {
            assert_usable(&client_of(tunnel)).await;
        }
        let indices: Vec<_> = device.handle.links().iter().map(|l| l.index()).collect();
        assert_eq!(indices, [0, 1, 2]);
        assert_eq!(device.handle.tunnels().len(), 3);

        before[1].close_with(tonic::Status::aborted("one of them"));
        before[1].closed().await;
        let after = gateway.has(3).await;
        let ids = |tunnels: &[tunnel_server::AcceptedTunnel]| -> HashSet<_> {
            tunnels.iter().map(|tunnel| tunnel.info().id()).collect()
        };
        let (before, after) = (ids(&before), ids(&after));
        assert_eq!(before.intersection(&after).count(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_to_several_gateways_are_up_at_once_and_do_not_wait_for_each_other() {
    guarded(async {
        let gateways = [TestGateway::start().await, TestGateway::start().await];
        let silent = TestGateway::start_with(|b| b.admit(|_| std::future::pending())).await;
        let builder = device(gateways[0].endpoint()).0;
        let builder = builder
            .gateway(silent.endpoint())
            .gateway(gateways[1].endpoint())
            .tunnels_per_gateway(2);
        let device = Running::start(builder.build());
        for gateway in &gateways {
            gateway.has(2).await;
            assert_usable(&gateway.client()).await;
        }
        assert_eq!(device.handle.connected().await, Ok(()));
        let connected: Vec<_> = device
            .handle
            .links()
            .iter()
            .map(|l| l.is_connected())
            .collect();
        assert_eq!(connected.len(), 6);
        assert_eq!(connected[2..4], [false, false]);

        // The end of one gateway does not affect the others.
        gateways[0].server.kill();
        device.until(0, |status| !status.is_connected()).await;
        assert_usable(&gateways[1].client()).await;
        gateways[1].has(2).await;
    })
    .await;
}

/// Zero counts as one.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_at_least_one_tunnel_to_a_gateway() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let builder = device(gateway.endpoint()).0.tunnels_per_gateway(0);
        let device = Running::start(builder.build());
        gateway.has(1).await;
        assert_eq!(device.handle.links().len(), 1);
    })
    .await;
}

/// Calls are distributed in turn, except to a device that has vanished.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_silent_with_calls_waiting_is_avoided() {
    guarded(async {
        let gateway = TestGateway::start().await;
        let link = FaultProxy::to(gateway.server.address()).await;
        let _frozen = Running::start(device(link.endpoint()).0.build());
        let frozen = gateway.has(1).await.remove(0).channel();
        let frozen = frozen.expect("a reverse tunnel");
        let _other = Running::start(device(gateway.endpoint()).0.build());
        gateway.has(2).await;
        link.freeze();
        let channel = gateway.handler.as_channel().suspect_after(Duration::ZERO);
        let client = TestServiceClient::new(TestChannel::new(channel));
        // One call detects the silence.
        let mut under_way = None;
        while frozen.unanswered_for().is_none() {
            let client = client.clone();
            let call = tokio::spawn(async move { assert_usable(&client).await });
            eventually(|| call.is_finished() || frozen.unanswered_for().is_some()).await;
            under_way = Some(call);
        }
        for _ in 0..20 {
            assert_usable(&client).await;
        }
        under_way.expect("one call waits").abort();
    })
    .await;
}
