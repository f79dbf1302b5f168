//! Calls without a tunnel: those that wait, and those that fail.

use std::time::Duration;

use futures::future::{join_all, poll_immediate};
use tokio::runtime::Handle;
use tonic::{Code, Request};
use tunnel_conformance::client::{call, run};
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::{assert_sent, requests};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, Outcome, Probe};
use tunnel_server::{ReverseChannel, WaitForReady, WhenNoTunnel};

use crate::support::device::Dial;
use crate::support::{
    NEVER, a_call, assert_no_tunnel, client, eventually, guarded, handler, local_device,
    no_tunnels, one, one_request,
};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tunnel_a_call_of_any_kind_fails_at_once_and_names_the_key() {
    guarded(async {
        let handler = handler(|builder| builder);
        for (channel, named) in [
            (handler.key_as_channel("device-7"), true),
            (handler.as_channel(), false),
        ] {
            for kind in Kind::ALL {
                let script = Script::named("nobody");
                let outcome = run(&client(&channel), kind, &script, one_request()).await;
                let message = outcome.expect_failure(Code::Unavailable).message();
                assert!(message.contains("no reverse tunnel was open"), "{message}");
                assert_eq!(message.contains("for key \"device-7\""), named, "{message}");
            }
        }
        // A key that would not fit a log line is valid.
        let odd = handler.key_as_channel("a\nb\u{1b}[31m");
        let message = assert_no_tunnel(&odd).await;
        assert!(message.contains(r#""a\nb\u{1b}[31m""#), "{message}");
    })
    .await;
}

/// Makes a call of each kind that has to wait, and polls each once.
async fn waiting_calls(channel: &ReverseChannel) -> Vec<tokio::task::JoinHandle<Outcome>> {
    let mut calls = Vec::new();
    for kind in Kind::ALL {
        let client = client(channel);
        let (polled, was_polled) = tokio::sync::oneshot::channel();
        calls.push(tokio::spawn(async move {
            let script = Script::named("waits").receive_all().send(1, 1000, 3);
            let sent = requests(1, kind.requests(5), 10_000);
            let mut call = Box::pin(run(&client, kind, &script, sent));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let _ = polled.send(());
            call.await
        }));
        was_polled.await.expect("it waits");
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_are_made_as_soon_as_a_tunnel_is_ready() {
    guarded(async {
        let handler = handler(|builder| builder);
        let own = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        let all = handler.as_channel().when_no_tunnel(WhenNoTunnel::Wait);
        let calls = waiting_calls(&own).await;
        // Neither a tunnel of another key counts nor one without settings.
        let other = local_device(&handler, "other").await;
        let dial = Dial::new(&Probe::default()).named("device-7");
        let accepted = dial.knock(handler.service()).await.expect("accepted");
        assert!(calls.iter().all(|call| !call.is_finished()));
        let device = accepted.serve();
        for outcome in join_all(calls).await {
            assert_sent(outcome.expect("no panic").expect_success(), 1, 1000, 3);
        }
        assert_eq!(device.probe.record("waits").started, 4);
        assert_eq!(other.probe.record("waits").started, 0);

        other.hang_up();
        device.hang_up();
        no_tunnels(&handler).await;
        let calls = waiting_calls(&all).await;
        local_device(&handler, "any").await;
        for outcome in join_all(calls).await {
            outcome.expect("no panic").expect_success();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_choose_for_itself_whether_it_waits() {
    guarded(async {
        let handler = handler(|builder| builder);
        let plain = handler.key_as_channel("device-7");
        let patient = plain.clone().when_no_tunnel(WhenNoTunnel::Wait);
        let request = |waits| {
            let script = Script::named("chooses").receive_all().send(1, 1, 1);
            let mut request = script.request(tunnel_conformance::payload::request(1, 10));
            request.extensions_mut().insert(WaitForReady(waits));
            request
        };
        let mut client = TestServiceClient::new(patient);
        let refused = client.unary(request(false)).await;
        assert_eq!(
            refused.expect_err("it does not wait").code(),
            Code::Unavailable
        );
        let mut client = TestServiceClient::new(plain);
        let mut call = Box::pin(client.unary(request(true)));
        assert!(poll_immediate(call.as_mut()).await.is_none());
        local_device(&handler, "device-7").await;
        call.await.expect("it has waited");
        // An interceptor may set it too.
        let impatient = |mut request: Request<()>| {
            request.extensions_mut().insert(WaitForReady(false));
            Ok(request)
        };
        let patient = handler
            .key_as_channel("device-8")
            .when_no_tunnel(WhenNoTunnel::Wait);
        let mut client = TestServiceClient::with_interceptor(patient, impatient);
        let refused = client.unary(request(true)).await;
        assert_eq!(
            refused.expect_err("it does not wait").code(),
            Code::Unavailable
        );
    })
    .await;
}

/// In virtual time, which also applies to the hang guard.
#[tokio::test(start_paused = true)]
async fn a_call_waits_no_longer_than_its_deadline() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        for kind in Kind::ALL {
            let mut request = Script::named("late").request(one());
            request.set_timeout(Duration::from_secs(10));
            let client = client(&channel);
            let mut call = Box::pin(call(&client, kind, request));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            tokio::time::advance(Duration::from_millis(9_900)).await;
            assert!(poll_immediate(call.as_mut()).await.is_none());
            tokio::time::advance(Duration::from_millis(200)).await;
            let outcome = call.await;
            let message = outcome.expect_failure(Code::DeadlineExceeded).message();
            assert!(message.contains("for key \"device-7\""), "{message}");
        }
    })
    .await;
}

/// The timeout that the device received.
fn timeout_of(outcome: &Outcome) -> Duration {
    let metadata = &outcome.expect_success()[0].metadata;
    let timeout = metadata.iter().find(|entry| entry.key == "grpc-timeout");
    let timeout = std::str::from_utf8(&timeout.expect("it travels").value).expect("text");
    tunnel_core::parse_grpc_timeout(timeout).expect("a timeout")
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_taken_off_the_deadline_that_travels() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        let mut request = Script::named("late").receive_all().report().request(one());
        request.set_timeout(Duration::from_secs(90));
        let client = client(&channel);
        let mut call = Box::pin(call(&client, Kind::Unary, request));
        assert!(poll_immediate(call.as_mut()).await.is_none());
        tokio::time::advance(Duration::from_secs(40)).await;
        local_device(&handler, "device-7").await;
        let left = timeout_of(&call.await);
        assert!(left <= Duration::from_secs(50), "{left:?}");
        assert!(left > Duration::from_secs(48), "{left:?}");
    })
    .await;
}

/// A deadline beyond the range of the clock counts as none, and is sent unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_any_length_are_accepted() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        for timeout in ["99999999H", "99999999S", "99999999M"] {
            let mut request = Script::named("long").receive_all().report().request(one());
            let value = timeout.parse().expect("legal");
            request.metadata_mut().insert("grpc-timeout", value);
            let client = client(&channel);
            let mut call = Box::pin(call(&client, Kind::Unary, request));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let device = local_device(&handler, "device-7").await;
            assert!(timeout_of(&call.await) > Duration::from_secs(90_000_000));
            device.hang_up();
            no_tunnels(&handler).await;
        }
        for timeout in ["0S", "-1S"] {
            let mut request = Script::named("over").request(one());
            let value = timeout.parse().expect("legal");
            request.metadata_mut().insert("grpc-timeout", value);
            let outcome = call(&client(&channel), Kind::Unary, request).await;
            outcome.expect_failure(Code::DeadlineExceeded);
        }
        local_device(&handler, "device-7").await;
        channel.wait_for_ready(Duration::MAX).await.expect("ready");
        channel.wait_for_ready(Duration::ZERO).await.expect("ready");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_tunnel_ends_with_one_or_at_the_deadline() {
    guarded(async {
        let handler = handler(|builder| builder);
        let own = handler.key_as_channel("device-7");
        for (channel, named) in [(own.clone(), true), (handler.as_channel(), false)] {
            let error = channel.wait_for_ready(Duration::from_secs(10)).await;
            let error = error.expect_err("nobody has come");
            assert_eq!(error.code(), Code::DeadlineExceeded);
            let named_it = error.message().contains("for key \"device-7\"");
            assert_eq!(named_it, named, "{error}");
        }
        let mut waiting = Box::pin(own.wait_for_ready(Duration::MAX));
        assert!(poll_immediate(waiting.as_mut()).await.is_none());
        // A tunnel of another key makes no difference.
        local_device(&handler, "other").await;
        handler
            .as_channel()
            .wait_for_ready(Duration::ZERO)
            .await
            .expect("ready");
        assert!(poll_immediate(waiting.as_mut()).await.is_none());
        let device = local_device(&handler, "device-7").await;
        waiting.await.expect("it is ready");
        assert!(own.is_ready());
        device.hang_up();
        eventually(|| !own.is_ready()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_calls_fail_when_the_gateway_drains() {
    guarded(async {
        let handler = handler(|builder| builder);
        let own = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        let all = handler.as_channel().when_no_tunnel(WhenNoTunnel::Wait);
        let mut calls = waiting_calls(&own).await;
        calls.extend(waiting_calls(&all).await);
        let mut waiting = [
            Box::pin(own.wait_for_ready(NEVER)),
            Box::pin(all.wait_for_ready(NEVER)),
        ];
        for waiting in &mut waiting {
            assert!(poll_immediate(waiting).await.is_none());
        }
        handler.drain(NEVER).await;
        for outcome in join_all(calls).await {
            let outcome = outcome.expect("no panic");
            let message = outcome.expect_failure(Code::Unavailable).message();
            assert!(message.contains("draining"), "{message}");
        }
        for waiting in waiting {
            let error = waiting.await.expect_err("the gateway drains");
            assert_eq!(error.code(), Code::Unavailable);
            assert!(error.message().contains("draining"), "{error}");
        }
        // Later calls fail at once, also those for a key that had no channel before.
        let late = handler
            .key_as_channel("late")
            .when_no_tunnel(WhenNoTunnel::Wait);
        for channel in [&own, &all, &late] {
            assert!(assert_no_tunnel(channel).await.contains("draining"));
            channel
                .wait_for_ready(NEVER)
                .await
                .expect_err("the gateway drains");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_that_is_dropped_leaves_nothing() {
    guarded(async {
        let handler = handler(|builder| builder);
        let channel = handler
            .key_as_channel("device-7")
            .when_no_tunnel(WhenNoTunnel::Wait);
        for kind in Kind::UPLOADS {
            let client = client(&channel);
            let (feed, mut watch) = Feed::endless(1, 10_000);
            let request = Script::named("dropped").request(feed);
            let mut call = Box::pin(call(&client, kind, request));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            assert_eq!(watch.taken(), 0, "nothing is read before there is a tunnel");
            drop(call);
            watch.dropped().await;
        }
        drop(channel);
        assert_eq!(handler.kept_keys(), 0);
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
        let device = local_device(&handler, "device-7").await;
        a_call(&handler.as_channel(), "after")
            .await
            .expect_success();
        assert_eq!(device.probe.record("dropped").started, 0);
    })
    .await;
}

/// Each tunnel opens while calls look for one.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_calls_miss_no_tunnel_that_opens() {
    guarded(async {
        let handler = handler(|builder| builder);
        for n in 0..200 {
            let name = format!("device-{n}");
            let channel = handler
                .key_as_channel(name.as_str())
                .when_no_tunnel(WhenNoTunnel::Wait);
            let calls = (0..4).map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    channel.wait_for_ready(NEVER).await.expect("it comes");
                    a_call(&channel, "in time").await
                })
            });
            let calls: Vec<_> = calls.collect();
            let waiting = tokio::spawn({
                let channel = channel.clone();
                async move { a_call(&channel, "in time").await }
            });
            let dial = Dial::new(&Probe::default()).named(&name);
            let device = dial.dial(handler.service()).await.expect("accepted");
            for call in calls.into_iter().chain([waiting]) {
                call.await.expect("no panic").expect_success();
            }
            device.hang_up();
        }
    })
    .await;
}
