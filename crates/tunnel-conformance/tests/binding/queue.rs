//! Calls past the limit of concurrent streams: refused, or waiting for a place.

use std::task::Poll;
use std::time::Duration;

use futures::future::poll_immediate;
use tonic::Code;
use tunnel_client::{Config, TunnelChannel};
use tunnel_conformance::client::{call, open, run};
use tunnel_conformance::payload::assert_sent;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Kind, Ongoing};

use crate::support::{Far, assert_usable, client, eventually, guarded, one, one_request};

async fn tunnel_for_one(far: &Far, queue: bool) -> TunnelChannel {
    let config = Config::builder().max_concurrent_streams(1).build();
    let opening = far.opening().await.queue_calls(queue);
    let opening = opening.config(config.expect("valid"));
    opening.open().await.expect("the far end accepts a tunnel")
}

/// A call that is there to stay.
async fn occupy(tunnel: &TunnelChannel) -> Ongoing {
    let script = Script::named("occupies").receive(1).send_headers().pend();
    let ongoing = open(&client(tunnel), Kind::Bidi, script.request(one())).await;
    ongoing.expect("headers come")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_past_the_limit_is_resource_exhausted() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far, false).await;
        let occupying = occupy(&tunnel).await;
        for kind in Kind::ALL {
            let script = Script::named("refused");
            let outcome = run(&client(&tunnel), kind, &script, one_request()).await;
            outcome.expect_failure(Code::ResourceExhausted);
        }
        assert_eq!(far.probe.record("refused").started, 0);
        drop(occupying);
        assert_usable(&client(&tunnel)).await;
    })
    .await;
}

/// And the far end's own limit refuses in the same way, that call alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_past_the_far_end_s_limit_is_resource_exhausted() {
    guarded(async {
        let config = Config::builder().max_concurrent_streams(1).build();
        let far = Far::start_with(|b| b.config(config.expect("valid")).build()).await;
        let tunnel = far.tunnel().await;
        let occupying = occupy(&tunnel).await;
        let script = Script::named("refused");
        let outcome = run(&client(&tunnel), Kind::Unary, &script, one_request()).await;
        outcome.expect_failure(Code::ResourceExhausted);
        drop(occupying);
        assert_usable(&client(&tunnel)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_calls_wait_for_a_place_and_then_succeed() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far, true).await;
        let occupying = occupy(&tunnel).await;
        let client = client(&tunnel);
        let script = Script::named("waited").receive_all().send(1, 10, 3);
        let sent = one_request();
        let mut calls: Vec<_> = Kind::ALL
            .into_iter()
            .map(|kind| Box::pin(run(&client, kind, &script, sent.clone())))
            .collect();
        for call in &mut calls {
            assert!(poll_immediate(call.as_mut()).await.is_none());
        }
        assert_eq!(far.probe.record("waited").started, 0);
        assert_eq!(tunnel.stats().streams, 1);
        drop(occupying);
        for outcome in futures::future::join_all(calls).await {
            assert_sent(outcome.expect_success(), 1, 10, 3);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_call_that_is_dropped_leaves_nothing_and_gives_way() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far, true).await;
        let occupying = occupy(&tunnel).await;
        let client = client(&tunnel);
        let script = Script::named("dropped");
        for kind in Kind::ALL {
            let mut call = Box::pin(run(&client, kind, &script, one_request()));
            assert!(poll_immediate(call.as_mut()).await.is_none());
        }
        drop(occupying);
        assert_usable(&client).await;
        assert_eq!(far.probe.record("dropped").started, 0);
        eventually(|| tunnel.kept_calls() == 0).await;
        assert_eq!(tunnel.stats().streams_total, 2);
    })
    .await;
}

/// Although nobody lets go of the call that has the only place.
#[tokio::test(flavor = "multi_thread")]
async fn queued_calls_fail_when_the_tunnel_ends() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far, true).await;
        let _occupying = occupy(&tunnel).await;
        let client = client(&tunnel);
        let script = Script::named("too late");
        let mut call = Box::pin(run(&client, Kind::Unary, &script, one_request()));
        assert!(poll_immediate(call.as_mut()).await.is_none());
        tunnel.close().await;
        call.await.expect_failure(Code::Unavailable);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_queued_call_runs_while_it_waits() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far, true).await;
        let _occupying = occupy(&tunnel).await;
        for kind in Kind::ALL {
            let mut request = Script::named("expired").request(one());
            request.set_timeout(Duration::from_millis(20));
            let outcome = call(&client(&tunnel), kind, request).await;
            outcome.expect_failure(Code::DeadlineExceeded);
        }
        assert_eq!(far.probe.record("expired").started, 0);
    })
    .await;
}

/// The handler is told what is left of it, not what there was at first.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_is_taken_off_the_deadline_that_travels() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far, true).await;
        let occupying = occupy(&tunnel).await;
        let mut request = Script::named("late").receive_all().report().request(one());
        request.set_timeout(Duration::from_secs(3600));
        let client = client(&tunnel);
        let mut call = Box::pin(call(&client, Kind::Unary, request));
        assert!(poll_immediate(call.as_mut()).await.is_none());
        drop(occupying);
        let outcome = call.await;
        let metadata = &outcome.expect_success()[0].metadata;
        let timeout = metadata.iter().find(|entry| entry.key == "grpc-timeout");
        let timeout = std::str::from_utf8(&timeout.expect("it travels").value).expect("text");
        let left = tunnel_core::parse_grpc_timeout(timeout).expect("a timeout");
        assert!(left < Duration::from_secs(3600), "{timeout}");
        assert!(left > Duration::from_secs(1800), "{timeout}");
    })
    .await;
}

/// A call has its place from its beginning to the end of its responses, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn many_queued_calls_take_turns() {
    guarded(async {
        let far = Far::start().await;
        let config = Config::builder().max_concurrent_streams(3).build();
        let opening = far.opening().await.queue_calls(true);
        let opening = opening.config(config.expect("valid"));
        let tunnel = opening.open().await.expect("the far end accepts a tunnel");
        let client = client(&tunnel);
        let script = Script::named("turn").receive_all().send(1, 30_000, 1);
        let sent = one_request();
        let calls = (0..200)
            .zip(Kind::ALL.into_iter().cycle())
            .map(|(_, kind)| run(&client, kind, &script, sent.clone()));
        let mut calls = futures::future::join_all(calls);
        let outcomes = std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut calls).poll(cx);
            assert!(tunnel.stats().streams <= 3);
            match polled {
                Poll::Ready(outcomes) => Poll::Ready(outcomes),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        for outcome in outcomes {
            assert_sent(outcome.expect_success(), 1, 30_000, 1);
        }
    })
    .await;
}
