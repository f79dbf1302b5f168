//! Calls that move to another tunnel, with their request and deadline.

use std::time::Duration;

use futures::future::poll_immediate;
use tokio::runtime::Handle;
use tonic::Code;
use tunnel_conformance::Kind;
use tunnel_conformance::client::{call, run};
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::{assert_sent, request, requests};
use tunnel_conformance::proto::Script;
use tunnel_server::WhenNoTunnel;

use crate::support::by_hand::{self, going_away, refuse};
use crate::support::moving::{
    How, Requests, first_by_hand, hear_messages, summary, whole_call, whole_request,
};
use crate::support::{
    NEVER, callable, client, eventually, guarded, handler, local_device, no_tunnels, served,
};

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds_move_from_a_tunnel_that_has_not_processed_them() {
    guarded(async {
        for how in How::ALL {
            for kind in Kind::ALL {
                let (handler, channel, device) = first_by_hand().await;
                let mut call = Box::pin(whole_call(client(&channel), kind));
                // The call has begun on the only tunnel.
                assert!(poll_immediate(call.as_mut()).await.is_none());
                let second = local_device(&handler, "device-7").await;
                let call = tokio::spawn(call);
                let _first = how.happens(&handler, device).await;
                let outcome = call.await.expect("no panic");
                if let Err(status) = &outcome.end {
                    panic!("{how:?} {kind:?}: {status:?}");
                }
                let received = outcome.expect_success()[0].received;
                assert_eq!(received, summary(whole_request(kind)), "{how:?} {kind:?}");
                let record = second.probe.record(&format!("{kind:?}"));
                assert_eq!(record.started, 1, "{how:?} {kind:?}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_says_which_tunnel_served_it_and_how_often_it_moved() {
    guarded(async {
        let (handler, channel, first) = first_by_hand().await;
        let moving = tokio::spawn({
            let channel = channel.clone();
            async move { served(&channel, "moves").await }
        });
        let mut first = first;
        let call = first.expect_call().await;
        let mut second = by_hand::device(handler.service(), "device-7").await;
        callable(&handler, 2).await;
        refuse(&first, call);
        let call = second.expect_call().await;
        let third = local_device(&handler, "device-7").await;
        going_away(&second, call - 1);
        let served_by = moving.await.expect("no panic");
        assert!(third.is(served_by.tunnel()));
        assert_eq!(served_by.retries(), 2);
        // The second device drains. The first device has refused only that one call.
        assert_eq!(channel.tunnels().len(), 2);
        first.stop_listening();
        callable(&handler, 1).await;
        let next = served(&channel, "stays").await;
        assert!(third.is(next.tunnel()));
        assert_eq!(next.retries(), 0);
        assert_eq!(next.tunnel().id(), channel.tunnels()[0].id());
    })
    .await;
}

/// The part of the request that was already read moves too. Nothing is lost, repeated or reordered.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_still_being_made_moves_as_a_whole() {
    guarded(async {
        for kind in Kind::UPLOADS {
            let (handler, channel, mut first) = first_by_hand().await;
            let (feed, requests) = Requests::new();
            let script = Script::named("upload").receive_all().summarize();
            let moving = tokio::spawn({
                let client = client(&channel);
                async move { call(&client, kind, script.request(requests)).await }
            });
            feed.send(1, 10);
            feed.send(2, 3000);
            let id = first.expect_call().await;
            hear_messages(&mut first, 2).await;
            let mut second = by_hand::device(handler.service(), "device-7").await;
            callable(&handler, 2).await;
            refuse(&first, id);
            let id = second.expect_call().await;
            hear_messages(&mut second, 2).await;
            feed.send(3, 0);
            feed.send(4, 20_000);
            hear_messages(&mut second, 2).await;
            let third = local_device(&handler, "device-7").await;
            going_away(&second, id - 1);
            third.probe.received("upload", 4).await;
            feed.send(5, 5);
            drop(feed);
            let outcome = moving.await.expect("no panic");
            let all = [(1, 10), (2, 3000), (3, 0), (4, 20_000), (5, 5)];
            let all = summary(all.map(|(seed, size)| request(seed, size)));
            assert_eq!(outcome.expect_success()[0].received, all);
            assert_eq!(third.probe.record("upload").received, 5);
        }
    })
    .await;
}

/// A message is never cut, even if the tunnel ends inside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_any_window_moves_from_its_middle() {
    guarded(async {
        let (handler, channel, mut first) = first_by_hand().await;
        let client = client(&channel.retry_buffer_limit(8 << 20));
        let script = Script::named("large").echo_all();
        let sent = vec![request(5, 3 << 20)];
        let moving = tokio::spawn(async move { run(&client, Kind::Bidi, &script, sent).await });
        let id = first.expect_call().await;
        hear_messages(&mut first, 1).await;
        let second = local_device(&handler, "device-7").await;
        refuse(&first, id);
        let outcome = moving.await.expect("no panic");
        assert_sent(outcome.expect_success(), 1, 3 << 20, 5);
        assert_eq!(second.probe.record("large").started, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_waits_again_when_its_first_tunnel_gives_it_up() {
    guarded(async {
        let (handler, channel, mut first) = first_by_hand().await;
        let channel = channel.when_no_tunnel(WhenNoTunnel::Wait);
        for kind in Kind::ALL {
            let mut call = Box::pin(whole_call(client(&channel), kind));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let id = first.expect_call().await;
            going_away(&first, id - 1);
            eventually(|| !channel.is_ready()).await;
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let device = local_device(&handler, "device-7").await;
            call.await.expect_success();
            device.hang_up();
            drop(first);
            no_tunnels(&handler).await;
            first = by_hand::device(handler.service(), "device-7").await;
            channel.wait_for_ready(NEVER).await.expect("ready");
        }
    })
    .await;
}

/// In virtual time.
#[tokio::test(start_paused = true)]
async fn the_time_spent_on_earlier_tunnels_is_taken_off_the_deadline() {
    guarded(async {
        for (spent, left) in [(20, Some(10)), (31, None)] {
            let (handler, channel, mut first) = first_by_hand().await;
            let script = Script::named("late").receive_all().report();
            let mut request = script.request(crate::support::one());
            request.set_timeout(Duration::from_secs(30));
            let client = client(&channel);
            let mut call = Box::pin(call(&client, Kind::Unary, request));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let id = first.expect_call().await;
            let second = local_device(&handler, "device-7").await;
            tokio::time::advance(Duration::from_secs(spent)).await;
            refuse(&first, id);
            let outcome = call.await;
            let Some(left) = left else {
                outcome.expect_failure(Code::DeadlineExceeded);
                assert_eq!(second.probe.record("late").started, 0);
                continue;
            };
            let metadata = &outcome.expect_success()[0].metadata;
            let timeout = metadata.iter().find(|entry| entry.key == "grpc-timeout");
            let timeout = std::str::from_utf8(&timeout.expect("it travels").value).expect("text");
            let told = tunnel_core::parse_grpc_timeout(timeout).expect("a timeout");
            assert!(told <= Duration::from_secs(left), "{told:?}");
            assert!(told > Duration::from_secs(left - 2), "{told:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_while_it_moves_leaves_nothing() {
    guarded(async {
        for kind in Kind::UPLOADS {
            let (handler, channel, mut first) = first_by_hand().await;
            let client = client(&channel.when_no_tunnel(WhenNoTunnel::Wait));
            let (feed, mut watch) = Feed::open(requests(1, 3, 1000));
            let request = Script::named("dropped").request(feed);
            let mut call = Box::pin(call(&client, kind, request));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let id = first.expect_call().await;
            going_away(&first, id - 1);
            eventually(|| handler.all_reverse_tunnels().is_empty()).await;
            // The call waits for the next tunnel and keeps its request.
            assert!(poll_immediate(call.as_mut()).await.is_none());
            drop(call);
            watch.dropped().await;
            eventually(|| handler.kept_calls() == 0).await;

            // The call is in its second attempt.
            let mut second = by_hand::device(handler.service(), "device-7").await;
            callable(&handler, 1).await;
            let (feed, mut watch) = Feed::open(requests(1, 3, 1000));
            let request = Script::named("dropped").request(feed);
            let mut call = Box::pin(tunnel_conformance::client::call(&client, kind, request));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let id = second.expect_call().await;
            let mut third = by_hand::device(handler.service(), "device-7").await;
            callable(&handler, 2).await;
            refuse(&second, id);
            tokio::select! {
                _ = third.expect_call() => {}
                outcome = &mut call => panic!("{outcome:?}"),
            }
            drop(call);
            watch.dropped().await;
            eventually(|| handler.kept_calls() == 0).await;
            drop((first, second, third, client));
            no_tunnels(&handler).await;
            assert_eq!(handler.kept_keys(), 0);
        }
        eventually(|| Handle::current().metrics().num_alive_tasks() == 0).await;
    })
    .await;
}

/// The retry buffer is released when it is not needed any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_answered_keeps_nothing_of_its_request() {
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler
            .key_as_channel("device-7")
            .retry_buffer_limit(usize::MAX);
        let script = Script::named("answered")
            .send_headers()
            .receive_all()
            .summarize();
        let (watch, body) = watched_body(&script);
        let mut service = channel.clone();
        let response = tower::Service::call(&mut service, body)
            .await
            .expect("headers come");
        device.probe.received("answered", 3).await;
        // The handler has them, and the call goes on.
        eventually(|| watch.strong_count() == 0).await;
        drop(response);
        device.probe.over("answered").await;
    })
    .await;
}

/// An endless request of three messages, whose memory the test observes.
fn watched_body(script: &Script) -> (std::sync::Weak<[u8]>, http::Request<tonic::body::Body>) {
    use crate::support::by_hand::body::{Pieces, data, message};
    use prost::Message as _;

    struct Shared(std::sync::Arc<[u8]>);
    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let one = message(&request(1, 1000).encode_to_vec());
    let memory: std::sync::Arc<[u8]> = one.repeat(3).into();
    let watch = std::sync::Arc::downgrade(&memory);
    let body = Pieces::then_pending(vec![data(bytes::Bytes::from_owner(Shared(memory)))]);
    let mut headers = script.request(()).into_parts().0.into_headers();
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    let mut request = http::Request::post(Kind::Bidi.method());
    *request.headers_mut().expect("legal") = headers;
    (watch, request.body(body).expect("legal"))
}

/// The refusal is that of the Go library after its GracefulStop. That library has no drain notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_moves_off_a_device_that_refuses_because_it_shuts_down() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut stopping = by_hand::device_without_drain(handler.service(), "device-7").await;
        callable(&handler, 1).await;
        let channel = handler.key_as_channel("device-7");
        let call = tokio::spawn({
            let channel = channel.clone();
            async move { served(&channel, "moves").await }
        });
        let id = stopping.expect_call().await;
        let other = local_device(&handler, "device-7").await;
        by_hand::refuse_stopping(&stopping, id);
        assert!(other.is(call.await.expect("no panic").tunnel()));
        eventually(|| handler.tunnels().len() == 1).await;
        assert_eq!(channel.tunnels().len(), 1);
    })
    .await;
}
