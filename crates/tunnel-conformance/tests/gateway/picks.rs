//! How a call picks one of several tunnels.

use futures::future::join_all;
use tunnel_conformance::Kind;
use tunnel_conformance::client::open;
use tunnel_conformance::proto::Script;
use tunnel_server::{Balance, ReverseChannel, TunnelServiceHandler, WhenNoTunnel};

use crate::support::device::Device;
use crate::support::{
    a_call, client, eventually, guarded, handler, local_device, one, ready, served,
};

async fn devices(handler: &TunnelServiceHandler, names: &[&str]) -> Vec<Device> {
    let mut devices = Vec::new();
    for name in names {
        devices.push(local_device(handler, name).await);
    }
    devices
}

fn calls(devices: &[Device], name: &str) -> Vec<u64> {
    let record = |device: &Device| device.probe.record(name).started;
    devices.iter().map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_pick_tunnels_round_robin() {
    guarded(async {
        let handler = handler(|builder| builder);
        let devices = devices(&handler, &["blue", "green", "blue", "blue"]).await;
        let all = handler.as_channel();
        for round in 1..=5 {
            for _ in 0..4 {
                a_call(&all, "all").await.expect_success();
            }
            assert_eq!(calls(&devices, "all"), [round; 4]);
        }
        // Each key has its own round-robin state. Clones of a channel share it.
        let blue = handler.key_as_channel("blue");
        for n in 0..9 {
            let channel = if n % 2 == 0 {
                blue.clone()
            } else {
                handler.key_as_channel("blue")
            };
            a_call(&channel, "blue").await.expect_success();
            a_call(&all, "between").await.expect_success();
        }
        assert_eq!(calls(&devices, "blue"), [3, 0, 3, 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_pick_tunnels_round_robin() {
    guarded(async {
        let handler = handler(|builder| builder);
        let devices = devices(&handler, &["a", "b", "c"]).await;
        let channel = handler.as_channel();
        let at_once = (0..300).map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { a_call(&channel, "at once").await })
        });
        for outcome in join_all(at_once.collect::<Vec<_>>()).await {
            outcome.expect("no panic").expect_success();
        }
        assert_eq!(calls(&devices, "at once"), [100; 3]);
    })
    .await;
}

/// The round robin continues with the remaining tunnels.
#[tokio::test(flavor = "multi_thread")]
async fn round_robin_stays_even_while_tunnels_come_and_go() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut devices = devices(&handler, &["a", "b", "c"]).await;
        let channel = handler.as_channel();
        for leaving in [0, 1, 1] {
            a_call(&channel, "before").await.expect_success();
            let gone = devices.remove(leaving);
            gone.hang_up();
            eventually(|| channel.tunnels().len() == 2).await;
            devices.push(local_device(&handler, "next").await);
            let before = calls(&devices, "after");
            for _ in 0..30 {
                a_call(&channel, "after").await.expect_success();
            }
            let after = calls(&devices, "after");
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(after - before, 10);
            }
        }
    })
    .await;
}

/// Opens calls that stay open on one tunnel.
async fn occupy(handler: &TunnelServiceHandler, device: &Device, count: usize) -> Vec<impl Sized> {
    let tunnel = ready(handler, device).await;
    let channel = tunnel.channel().expect("a reverse tunnel");
    let client = tunnel_conformance::proto::test_service_client::TestServiceClient::new(channel);
    let script = Script::named("stays").receive(1).send_headers().pend();
    let calls = (0..count).map(|_| open(&client, Kind::Bidi, script.request(one())));
    let calls = join_all(calls).await;
    calls
        .into_iter()
        .map(|call| call.expect("headers come"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tunnels_the_one_with_fewer_calls_is_picked_if_so_configured() {
    guarded(async {
        let handler = handler(|builder| builder);
        let devices = devices(&handler, &["busy", "idle"]).await;
        let channel = handler.as_channel().balance(Balance::FewestCalls);
        let stays = occupy(&handler, &devices[0], 2).await;
        for n in 1..=50 {
            let tunnel = served(&channel, "next").await;
            assert!(devices[1].is(tunnel.tunnel()), "call {n}");
        }
        // Round-robin channels are not affected.
        let turns = handler.as_channel();
        for _ in 0..10 {
            a_call(&turns, "turns").await.expect_success();
        }
        assert_eq!(calls(&devices, "turns"), [5, 5]);
        drop(stays);
        eventually(|| handler.kept_calls() == 0).await;
        let _stays = occupy(&handler, &devices[1], 1).await;
        for _ in 0..50 {
            assert!(devices[0].is(served(&channel, "next").await.tunnel()));
        }
    })
    .await;
}

/// Of two random tunnels, the one with fewer calls is picked.
#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_tunnel_of_many_is_never_picked() {
    guarded(async {
        let handler = handler(|builder| builder);
        let devices = devices(&handler, &["a", "b", "busy", "c", "d"]).await;
        let _stays = occupy(&handler, &devices[2], 1).await;
        let channel = handler.as_channel().balance(Balance::FewestCalls);
        for _ in 0..300 {
            a_call(&channel, "next").await.expect_success();
        }
        let calls = calls(&devices, "next");
        assert_eq!(calls[2], 0);
        assert!(
            calls.iter().filter(|&&calls| calls > 0).count() == 4,
            "{calls:?}"
        );
    })
    .await;
}

/// Settings belong to the channel, not to the handler.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_channel_do_not_affect_other_channels() {
    guarded(async {
        let handler = handler(|builder| builder);
        let plain = handler.as_channel();
        let set: ReverseChannel = plain
            .clone()
            .balance(Balance::FewestCalls)
            .when_no_tunnel(WhenNoTunnel::Wait);
        let text = format!("{plain:?} {set:?}");
        assert!(
            text.contains("RoundRobin") && text.contains("FewestCalls"),
            "{text}"
        );
        // A call on the plain channel does not wait.
        a_call(&plain, "nobody")
            .await
            .expect_failure(tonic::Code::Unavailable);
        let client = client(&set);
        let script = Script::named("waits").receive_all().send(1, 1, 1);
        let mut call = Box::pin(tunnel_conformance::client::run(
            &client,
            Kind::Unary,
            &script,
            crate::support::one_request(),
        ));
        assert!(
            futures::future::poll_immediate(call.as_mut())
                .await
                .is_none()
        );
        local_device(&handler, "a").await;
        call.await.expect_success();
    })
    .await;
}
