//! Tunnels at their limit of calls in flight.

use futures::future::{join_all, poll_immediate};
use tonic::Code;
use tunnel_conformance::client::{call, open, run};
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::requests;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, Ongoing, Probe};
use tunnel_core::Config;
use tunnel_server::{Balance, TunnelServiceHandler, WhenNoTunnel, is_safe_to_retry};

use crate::support::by_hand::{self, going_away};
use crate::support::device::{Device, Dial};
use crate::support::{
    a_call, assert_usable, callable, client, eventually, guarded, handler, local_device, one,
    one_request, ready, served,
};

/// A gateway whose tunnels have room for this many calls.
fn with_room(calls: usize) -> TunnelServiceHandler {
    let config = Config::builder().max_concurrent_streams(calls).build();
    handler(|builder| builder.config(config.expect("valid")))
}

/// A call that stays open on one tunnel.
async fn occupy(handler: &TunnelServiceHandler, device: &Device) -> Ongoing {
    let tunnel = ready(handler, device).await.channel();
    let client = TestServiceClient::new(tunnel.expect("a reverse tunnel"));
    let script = Script::named("stays").receive(1).send_headers().pend();
    let call = open(&client, Kind::Bidi, script.request(one())).await;
    call.expect("headers come")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_a_tunnel_has_no_room_for_go_to_the_others() {
    guarded(async {
        for balance in [Balance::RoundRobin, Balance::FewestCalls] {
            let handler = with_room(1);
            let full = local_device(&handler, "device-7").await;
            let free = local_device(&handler, "device-7").await;
            let channel = handler.key_as_channel("device-7").balance(balance);
            let stays = occupy(&handler, &full).await;
            for _ in 0..10 {
                let served = served(&channel, "next").await;
                assert!(free.is(served.tunnel()));
                eventually(|| handler.kept_calls() == 1).await;
            }
            for kind in Kind::ALL {
                let script = Script::named("any kind").receive_all().send(1, 10, 1);
                let sent = requests(1, kind.requests(20), 9_000);
                let outcome = run(&client(&channel), kind, &script, sent).await;
                outcome.expect_success();
                eventually(|| handler.kept_calls() == 1).await;
            }
            assert_eq!(free.probe.record("any kind").started, 4);
            assert_eq!(full.probe.record("next").started, 0);
            drop(stays);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_one_tunnel_wait_for_room() {
    guarded(async {
        let handler = with_room(1);
        let device = local_device(&handler, "device-7").await;
        let stays = occupy(&handler, &device).await;
        let tunnel = ready(&handler, &device).await.channel();
        let tunnel = tunnel.expect("a reverse tunnel");
        let client = TestServiceClient::new(tunnel);
        let request = Script::named("waits").receive_all().request(one());
        let mut waits = Box::pin(call(&client, Kind::Unary, request));
        assert!(poll_immediate(waits.as_mut()).await.is_none());
        drop(stays);
        waits.await.expect_success();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_tunnels_are_full_calls_wait_for_room_and_all_are_answered() {
    guarded(async {
        let handler = with_room(2);
        let mut devices = Vec::new();
        for _ in 0..2 {
            devices.push(local_device(&handler, "device-7").await);
        }
        let channel = handler.key_as_channel("device-7");
        let calls = (0..100).map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { a_call(&channel, "one of many").await })
        });
        for outcome in join_all(calls.collect::<Vec<_>>()).await {
            outcome.expect("no panic").expect_success();
        }
        for device in &devices {
            assert!(device.probe.record("one of many").started > 0);
        }
    })
    .await;
}

/// More calls than a tunnel takes at once.
#[tokio::test(flavor = "multi_thread")]
async fn fifteen_hundred_calls_at_once_by_key_are_all_answered() {
    guarded(async {
        let handler = handler(|builder| builder);
        let _device = local_device(&handler, "device-7").await;
        assert_all_answered(&handler, 1_500).await;
    })
    .await;
}

/// A full device refuses further calls without processing them.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_less_room_than_its_gateway_answers_all_calls() {
    guarded(async {
        let handler = handler(|builder| builder);
        let config = Config::builder().max_concurrent_streams(4).build();
        let dial = Dial::new(&Probe::default()).named("device-7");
        let dial = dial.config(config.expect("valid"));
        let device = dial.dial(handler.service()).await.expect("accepted");
        ready(&handler, &device).await;
        assert_all_answered(&handler, 100).await;
    })
    .await;
}

async fn assert_all_answered(handler: &TunnelServiceHandler, calls: usize) {
    let channel = handler.key_as_channel("device-7");
    let calls = (0..calls).map(|_| {
        let channel = channel.clone();
        tokio::spawn(async move { a_call(&channel, "many").await })
    });
    for outcome in join_all(calls.collect::<Vec<_>>()).await {
        outcome.expect("no panic").expect_success();
    }
}

/// This also holds for channels whose calls wait for a tunnel: there are tunnels, and all are full.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_tunnels_are_full_a_call_is_resource_exhausted_and_says_of_which_key() {
    guarded(async {
        let handler = with_room(1);
        let mut stays = Vec::new();
        for _ in 0..3 {
            let device = local_device(&handler, "device-7").await;
            stays.push(occupy(&handler, &device).await);
        }
        let own = handler.key_as_channel("device-7").queue_calls(false);
        for then in [WhenNoTunnel::Fail, WhenNoTunnel::Wait] {
            let own = own.clone().when_no_tunnel(then);
            for kind in Kind::ALL {
                let script = Script::named("refused");
                let outcome = run(&client(&own), kind, &script, one_request()).await;
                let status = outcome.expect_failure(Code::ResourceExhausted);
                let message = status.message();
                assert!(
                    message.contains("for key \"device-7\" are full"),
                    "{message}"
                );
                assert!(is_safe_to_retry(status), "no handler has seen the call");
            }
        }
        let any = handler.as_channel().queue_calls(false);
        let outcome = a_call(&any, "refused").await;
        let message = outcome.expect_failure(Code::ResourceExhausted).message();
        assert!(
            message.contains("the reverse tunnels are full"),
            "{message}"
        );
        stays.pop();
        eventually(|| handler.kept_calls() == 2).await;
        assert_usable(&own).await;
    })
    .await;
}

/// The limit on moves counts tunnels that end, not full ones.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_tunnel_with_room_is_found_among_many() {
    guarded(async {
        let handler = with_room(1);
        let mut stays = Vec::new();
        for _ in 0..45 {
            let device = local_device(&handler, "device-7").await;
            stays.push(occupy(&handler, &device).await);
        }
        let free = local_device(&handler, "device-7").await;
        for balance in [Balance::RoundRobin, Balance::FewestCalls] {
            let channel = handler.key_as_channel("device-7").balance(balance);
            let mut most = 0;
            for _ in 0..10 {
                let served = served(&channel, "next").await;
                assert!(free.is(served.tunnel()));
                most = most.max(served.retries());
                eventually(|| handler.kept_calls() == 45).await;
            }
            assert!(balance != Balance::RoundRobin || most == 45, "{most} moves");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tunnel_is_the_reason_whichever_tunnel_was_tried_last() {
    guarded(async {
        for full_first in [true, false] {
            let handler = with_room(1);
            let channel = handler
                .key_as_channel("device-7")
                .queue_calls(false)
                .when_no_tunnel(WhenNoTunnel::Wait);
            let mut draining = by_hand::device(handler.service(), "device-7").await;
            callable(&handler, 1).await;
            let full = local_device(&handler, "device-7").await;
            let _stays = occupy(&handler, &full).await;
            if full_first {
                // The draining tunnel is first in turn and is skipped.
                let client = client(&channel);
                let script = Script::named("turn");
                let mut turn = Box::pin(run(&client, Kind::Unary, &script, one_request()));
                assert!(poll_immediate(turn.as_mut()).await.is_none());
                draining.expect_call().await;
                drop(turn);
                eventually(|| handler.kept_calls() == 1).await;
            }
            let call = tokio::spawn({
                let channel = channel.clone();
                async move { a_call(&channel, "refused").await }
            });
            let id = draining.expect_call().await;
            going_away(&draining, id - 1);
            let outcome = call.await.expect("no panic");
            outcome.expect_failure(Code::ResourceExhausted);
        }
    })
    .await;
}

/// Each call counts from its beginning to the end of its responses.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_fill_all_tunnels_and_none_beyond_its_room() {
    guarded(async {
        let handler = with_room(5);
        let mut devices = Vec::new();
        for _ in 0..4 {
            devices.push(local_device(&handler, "device-7").await);
        }
        let channel = handler.key_as_channel("device-7").queue_calls(false);
        let calls = (0..30).map(|n: u64| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let script = Script::named("fills").receive(1).wait("go on");
                let script = script.send(1, 10, 1);
                let (feed, _watch) = Feed::open(requests(n, 2, 10_000));
                call(&client(&channel), Kind::ClientStream, script.request(feed)).await
            })
        });
        let calls: Vec<_> = calls.collect();
        for device in &devices {
            device.probe.until("fills", |r| r.received == 5).await;
        }
        eventually(|| calls.iter().filter(|call| call.is_finished()).count() == 10).await;
        for (_, stats) in handler.stats() {
            assert_eq!(stats.streams, 5);
        }
        for device in &devices {
            device.probe.open("go on");
        }
        let mut refused = 0;
        for outcome in join_all(calls).await {
            let outcome = outcome.expect("no panic");
            match &outcome.end {
                Ok(_) => {}
                Err(_) => {
                    outcome.expect_failure(Code::ResourceExhausted);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 10);
        assert!(
            devices
                .iter()
                .all(|device| device.probe.record("fills").started == 5)
        );
        eventually(|| handler.kept_calls() == 0).await;
    })
    .await;
}
