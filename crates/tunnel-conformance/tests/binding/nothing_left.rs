//! Ended calls and tunnels leave no task, no call and no counter behind.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tonic::Code;
use tower::Service as _;
use tunnel_client::{Stats, TunnelChannel};
use tunnel_conformance::client::{call, open, run};
use tunnel_conformance::feed::Feed;
use tunnel_conformance::payload::requests;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{Client, Kind};

use crate::support::{Far, client, eventually, guarded, one, one_request};

/// How a call may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Success,
    Failure,
    Panic,
    Deadline,
    NeverPolled,
    CancelledBeforeHeaders,
    CancelledAfterHeaders,
    CancelledBetweenResponses,
    CancelledInAFlood,
    CancelledDuringUpload,
}

impl End {
    const ALL: [Self; 10] = [
        Self::Success,
        Self::Failure,
        Self::Panic,
        Self::Deadline,
        Self::NeverPolled,
        Self::CancelledBeforeHeaders,
        Self::CancelledAfterHeaders,
        Self::CancelledBetweenResponses,
        Self::CancelledInAFlood,
        Self::CancelledDuringUpload,
    ];
}

/// Makes a call of this kind that ends this way. Each call has a unique name for the probe.
async fn make(far: &Far, client: &Client, kind: Kind, end: End, round: usize) {
    let name = format!("{kind:?} {end:?} {round}");
    let script = Script::named(&name);
    match end {
        End::Success => {
            let script = script.receive_all().send(1, 100_000, 1);
            let sent = requests(1, kind.requests(3), 100_000);
            run(client, kind, &script, sent).await.expect_success();
        }
        End::Failure => {
            let script = script.receive(1).fail(Code::DataLoss, "no");
            let outcome = run(client, kind, &script, requests(1, 1, 100_000)).await;
            outcome.expect_failure(Code::DataLoss);
        }
        End::Panic => {
            let script = script.receive(1).panic("injected panic");
            let outcome = run(client, kind, &script, one_request()).await;
            outcome.expect_failure(Code::Internal);
        }
        End::Deadline => {
            let mut request = script.receive(1).pend().request(one());
            request.set_timeout(Duration::from_millis(50));
            let outcome = call(client, kind, request).await;
            outcome.expect_failure(Code::DeadlineExceeded);
        }
        End::NeverPolled => drop(run(client, kind, &script, one_request())),
        End::CancelledBeforeHeaders => {
            let script = script.receive(1).pend();
            let sent = one_request();
            tokio::select! {
                () = far.probe.started(&name) => {}
                outcome = run(client, kind, &script, sent) => panic!("{outcome:?}"),
            }
        }
        End::CancelledAfterHeaders | End::CancelledBetweenResponses | End::CancelledInAFlood => {
            if !kind.downloads() {
                return;
            }
            let responses = match end {
                End::CancelledAfterHeaders => 0,
                End::CancelledBetweenResponses => 3,
                _ => u64::MAX,
            };
            let script = script
                .receive(1)
                .send_headers()
                .send(responses, 65_536, 1)
                .pend();
            let ongoing = open(client, kind, script.request(one())).await;
            let mut ongoing = ongoing.expect("headers come");
            if responses > 0 {
                ongoing.expect_next().await;
            }
        }
        End::CancelledDuringUpload => {
            if !kind.uploads() {
                return;
            }
            let (feed, mut watch) = Feed::endless(1, 65_536);
            let script = script.receive(2).pend();
            tokio::select! {
                _ = far.probe.until(&name, |record| record.received == 2) => {}
                outcome = call(client, kind, script.request(feed)) => panic!("{outcome:?}"),
            }
            watch.dropped().await;
        }
    }
}

fn is_idle(stats: &Stats) -> bool {
    // The other fields are totals.
    let held = [
        stats.streams,
        stats.unread_bytes,
        stats.spare_used,
        stats.queued_bytes,
        stats.deadlines,
        stats.waiting_calls,
        stats.cancelled_handlers,
        stats.pending_refusals,
        stats.stalled_streams,
    ];
    held == [0; 9]
}

/// Waits until both ends of a tunnel keep nothing for any call.
async fn nothing_kept(far: &Far, tunnel: &TunnelChannel) {
    eventually(|| tunnel.kept_calls() == 0 && is_idle(&tunnel.stats())).await;
    eventually(|| far.handler.kept_calls() == 0).await;
    eventually(|| far.handler.stats().iter().all(|(_, stats)| is_idle(stats))).await;
}

/// The number of tasks at a started far end without connections: the server's own.
const SERVER_TASKS: usize = 1;

fn tasks(runtime: &Handle) -> usize {
    runtime.metrics().num_alive_tasks()
}

/// Calls of all kinds that end in all ways, concurrently and several times.
async fn all_calls(far: &Far, tunnel: &TunnelChannel) {
    for round in 0..3 {
        let client = client(tunnel);
        let calls = Kind::ALL.into_iter().flat_map(|kind| {
            let client = &client;
            let call = move |end| make(far, client, kind, end, round);
            End::ALL.into_iter().map(call)
        });
        futures::future::join_all(calls).await;
    }
}

/// The tunnel stays open, so its end cannot do the cleanup.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_calls_of_all_kinds_however_they_ended() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        nothing_kept(&far, &tunnel).await;
        let there = far.server.runtime().expect("it lives");
        // Counts the tasks of the connection and of the tunnel.
        let before = (tasks(&Handle::current()), tasks(&there));
        all_calls(&far, &tunnel).await;
        nothing_kept(&far, &tunnel).await;
        eventually(|| tasks(&Handle::current()) <= before.0 && tasks(&there) <= before.1).await;
        assert!(tunnel.stats().streams_total >= 3 * 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_is_left_on_either_side_when_a_tunnel_has_closed() {
    guarded(async {
        let far = Far::start().await;
        let there = far.server.runtime().expect("it lives");
        let before = SERVER_TASKS;
        eventually(|| tasks(&there) == before).await;
        let tunnel = far.tunnel().await;
        all_calls(&far, &tunnel).await;
        tunnel.close().await;
        assert_eq!(tunnel.kept_calls(), 0);
        assert!(is_idle(&tunnel.stats()));
        far.no_tunnels().await;
        drop(tunnel);
        eventually(|| tasks(&there) == before).await;
        eventually(|| tasks(&Handle::current()) == 0).await;
    })
    .await;
}

/// The tunnel ends while calls of all kinds are at every stage.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_calls_whose_tunnel_was_closed_under_them() {
    guarded(async {
        let far = Far::start().await;
        let there = far.server.runtime().expect("it lives");
        let before = SERVER_TASKS;
        eventually(|| tasks(&there) == before).await;
        let tunnel = far.tunnel().await;
        let mut calls = JoinSet::new();
        for kind in Kind::ALL {
            for (name, script) in [
                ("before headers", Script::named("cut").receive(1).pend()),
                (
                    "unread",
                    Script::named("cut").receive(1).send(1000, 65_536, 1),
                ),
                ("uploading", Script::named("cut").receive(1).pend()),
            ] {
                let client = client(&tunnel);
                calls.spawn(async move {
                    let outcome = match name {
                        "uploading" => {
                            let (feed, _watch) = Feed::endless(1, 65_536);
                            call(&client, kind, script.request(feed)).await
                        }
                        _ => run(&client, kind, &script, one_request()).await,
                    };
                    outcome.expect_failure(Code::Unavailable);
                });
            }
        }
        far.probe.until("cut", |record| record.received == 12).await;
        tunnel.close().await;
        while let Some(call) = calls.join_next().await {
            if let Err(error) = call {
                // A method with a single response panics on a script with a thousand.
                assert!(error.is_panic(), "{error}");
            }
        }
        far.no_tunnels().await;
        eventually(|| tunnel.kept_calls() == 0).await;
        assert!(is_idle(&tunnel.stats()));
        drop(tunnel);
        eventually(|| tasks(&there) == before).await;
        eventually(|| tasks(&Handle::current()) == 0).await;
    })
    .await;
}

/// A handler that outlives its server's runtime lists no tunnels.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_runtime_is_gone_lists_no_tunnels() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        assert_eq!(far.handler.tunnels().len(), 1);
        far.server.kill();
        far.no_tunnels().await;
        tunnel.ended().await;
        far.handler.drain(Duration::ZERO).await;
    })
    .await;
}

/// A call whose future was never polled keeps only the tunnel open.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_polled_keeps_nothing() {
    guarded(async {
        let far = Far::start().await;
        let mut tunnel = far.tunnel().await;
        let call = tunnel.call(http::Request::new(tonic::body::Body::empty()));
        assert_eq!(tunnel.kept_calls(), 0);
        assert_eq!(tunnel.stats(), Stats::default());
        drop(call);
        drop(tunnel);
        far.no_tunnels().await;
    })
    .await;
}
