//! Calls above the limit of concurrent streams wait or are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::poll_immediate;
use tonic::Code;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Config, TunnelChannel};
use tunnel_conformance::client::{call, open, run};
use tunnel_conformance::payload::assert_sent;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Kind, Ongoing, Probe, TcpServer, TestChannel};
use tunnel_server::is_safe_to_retry;

use crate::support::raw_service::raw_call;
use crate::support::{Far, assert_usable, client, eventually, guarded, one, one_request};

/// A tunnel with this limit of concurrent calls.
async fn tunnel_for(calls: usize, far: &Far) -> TunnelChannel {
    let config = Config::builder().max_concurrent_streams(calls).build();
    let opening = far.opening().await.config(config.expect("valid"));
    opening.open().await.expect("the far end accepts a tunnel")
}

async fn tunnel_for_one(far: &Far) -> TunnelChannel {
    tunnel_for(1, far).await
}

/// A call that stays open.
async fn occupy(client: &Client) -> Ongoing {
    let script = Script::named("occupies").receive(1).send_headers().pend();
    let ongoing = open(client, Kind::Bidi, script.request(one())).await;
    ongoing.expect("headers come")
}

/// Panics unless calls of all kinds wait behind an open call and then succeed.
async fn assert_calls_wait(client: &Client, probe: &Probe) {
    let occupying = occupy(client).await;
    let script = Script::named("waited").receive_all().send(1, 10, 3);
    let sent = one_request();
    let mut calls: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| Box::pin(run(client, kind, &script, sent.clone())))
        .collect();
    for call in &mut calls {
        assert!(poll_immediate(call.as_mut()).await.is_none());
    }
    assert_eq!(probe.record("waited").started, 0);
    drop(occupying);
    for outcome in futures::future::join_all(calls).await {
        assert_sent(outcome.expect_success(), 1, 10, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_past_the_limit_wait_for_room_as_without_a_tunnel() {
    guarded(async {
        let probe = Probe::default();
        let server = Server::builder().max_concurrent_streams(1);
        let plain = TcpServer::start(server, Routes::new(scripted(&probe))).await;
        let plain = TestServiceClient::new(TestChannel::new(plain.channel().await));
        assert_calls_wait(&plain, &probe).await;
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far).await;
        assert_calls_wait(&client(&tunnel), &far.probe).await;
        assert_eq!(tunnel.stats().streams_total, 5);
    })
    .await;
}

/// Counts its wake-ups.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_waiting_calls_are_woken_as_there_is_room() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for(3, &far).await;
        let client = client(&tunnel);
        let mut occupying = Vec::new();
        for _ in 0..3 {
            occupying.push(occupy(&client).await);
        }
        let wakes: Arc<Wakes> = Arc::default();
        let waker = Waker::from(wakes.clone());
        let mut calls: Vec<_> = (0..10)
            .map(|_| Box::pin(raw_call(&tunnel, Body::empty())))
            .collect();
        for call in &mut calls {
            let polled = call.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        drop(occupying.pop());
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        drop(occupying);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 3);
        // The dropped calls were woken first, and pass their wake-ups on.
        drop(calls.drain(..2));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 5);
        tunnel.close().await;
        assert_eq!(wakes.0.load(Ordering::SeqCst), 10);
        for call in calls {
            assert!(is_safe_to_retry(
                &call.await.expect_err("the tunnel has ended")
            ));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_calls_do_not_overtake_waiting_ones() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far).await;
        let client = client(&tunnel);
        let occupying = occupy(&client).await;
        let first = Script::named("first").receive_all().wait("go on");
        let mut first = Box::pin(run(&client, Kind::Unary, &first, one_request()));
        assert!(poll_immediate(first.as_mut()).await.is_none());
        drop(occupying);
        let second = Script::named("second").receive_all();
        let mut second = Box::pin(run(&client, Kind::Unary, &second, one_request()));
        assert!(poll_immediate(second.as_mut()).await.is_none());
        assert_eq!(tunnel.stats().streams, 0);
        let refused = tunnel.clone().queue_calls(false);
        let refused = raw_call(&refused, Body::empty()).await;
        let refused = refused.expect_err("the slot is reserved for another call");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(poll_immediate(first.as_mut()).await.is_none());
        assert_eq!(tunnel.stats().streams, 1);
        far.probe.open("go on");
        first.await.expect_success();
        second.await.expect_success();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_past_the_limit_is_resource_exhausted_where_calls_do_not_wait() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far).await.queue_calls(false);
        let occupying = occupy(&client(&tunnel)).await;
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

/// The far end announces its limit of concurrent calls. This end queues or refuses the calls above
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn the_far_end_s_limit_applies_like_the_local_one() {
    guarded(async {
        let config = Config::builder().max_concurrent_streams(1).build();
        let far = Far::start_with(|b| b.config(config.expect("valid")).build()).await;
        let tunnel = far.tunnel().await;
        let occupying = occupy(&client(&tunnel)).await;
        let script = Script::named("refused");
        let failing = tunnel.clone().queue_calls(false);
        let outcome = run(&client(&failing), Kind::Unary, &script, one_request()).await;
        outcome.expect_failure(Code::ResourceExhausted);
        let script = Script::named("waits");
        let waiting = client(&tunnel);
        let mut waits = Box::pin(run(&waiting, Kind::Unary, &script, one_request()));
        assert!(poll_immediate(waits.as_mut()).await.is_none());
        drop(occupying);
        waits.await.expect_success();
        assert_eq!(far.probe.record("refused").started, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_call_that_is_dropped_leaves_nothing_and_gives_way() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far).await;
        let occupying = occupy(&client(&tunnel)).await;
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

/// The call that uses the only slot stays open.
#[tokio::test(flavor = "multi_thread")]
async fn queued_calls_fail_when_the_tunnel_ends_or_drains_and_may_be_made_again() {
    guarded(async {
        for drain in [false, true] {
            let far = Far::start().await;
            let tunnel = tunnel_for_one(&far).await;
            let client = client(&tunnel);
            let _occupying = occupy(&client).await;
            let script = Script::named("too late");
            let mut call = Box::pin(run(&client, Kind::Unary, &script, one_request()));
            assert!(poll_immediate(call.as_mut()).await.is_none());
            let mut end = Box::pin(async {
                match drain {
                    true => _ = tunnel.drain(Duration::from_secs(3600)).await,
                    false => tunnel.close().await,
                }
            });
            let _ = poll_immediate(end.as_mut()).await;
            let outcome = call.await;
            assert!(is_safe_to_retry(outcome.expect_failure(Code::Unavailable)));
            assert_eq!(far.probe.record("too late").started, 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_queued_call_runs_while_it_waits() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far).await;
        let _occupying = occupy(&client(&tunnel)).await;
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

/// The handler gets the remaining time, not the original timeout.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_is_subtracted_from_the_deadline_that_is_sent() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for_one(&far).await;
        let occupying = occupy(&client(&tunnel)).await;
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

/// A call occupies its slot from its start to the end of its responses, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn many_queued_calls_take_turns() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = tunnel_for(3, &far).await;
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
