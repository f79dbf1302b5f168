//! The lifecycle of a tunnel's channel.

use std::time::Duration;

use futures::future::join_all;
use tonic::Code;
use tower::ServiceExt as _;
use tunnel_client::{ConnectionError, Direction, EndReason, TunnelChannel};
use tunnel_conformance::client::{open, run};
use tunnel_conformance::payload::assert_sent;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{FaultProxy, Kind, Outcome};

use crate::support::raw_service::{answers, raw_request, response};
use crate::support::{Far, assert_usable, client, guarded, one, one_request};

/// Starts a call of each kind. The handlers wait for a gate and then answer.
async fn calls_in_flight(
    far: &Far,
    tunnel: &TunnelChannel,
) -> tokio::task::JoinHandle<Vec<Outcome>> {
    let before = far.probe.record("in flight").received;
    let client = client(tunnel);
    let calls = tokio::spawn(async move {
        let script = Script::named("in flight").receive_all().wait("go on");
        let script = script.send(1, 100_000, 1);
        let calls = Kind::ALL.map(|kind| {
            let (client, script) = (&client, &script);
            async move { run(client, kind, script, one_request()).await }
        });
        join_all(calls).await
    });
    let received = |record: &tunnel_conformance::probe::Record| record.received == before + 4;
    far.probe.until("in flight", received).await;
    calls
}

async fn assert_all_finish(calls: tokio::task::JoinHandle<Vec<Outcome>>) {
    for outcome in calls.await.expect("no panic") {
        assert_sent(outcome.expect_success(), 1, 100_000, 1);
    }
}

async fn assert_all_unavailable(calls: tokio::task::JoinHandle<Vec<Outcome>>) {
    for outcome in calls.await.expect("no panic") {
        outcome.expect_failure(Code::Unavailable);
    }
}

/// Checks that new calls of all kinds fail and do not reach a handler.
async fn assert_closed_to_calls(far: &Far, tunnel: &TunnelChannel) {
    assert!(!tunnel.is_ready());
    for kind in Kind::ALL {
        let script = Script::named("too late");
        let outcome = run(&client(tunnel), kind, &script, one_request()).await;
        outcome.expect_failure(Code::Unavailable);
    }
    assert_eq!(far.probe.record("too late").started, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn close_fails_calls_in_flight_and_resolves() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let calls = calls_in_flight(&far, &tunnel).await;
        tunnel.close().await;
        assert_all_unavailable(calls).await;
        assert_eq!(tunnel.end_reason(), Some(EndReason::Closed));
        assert_eq!(tunnel.ended().await, EndReason::Closed);
        far.probe
            .until("in flight", |record| record.dropped == 4)
            .await;
        far.no_tunnels().await;
        assert_closed_to_calls(&far, &tunnel).await;
        // Closing again has no effect, also from another clone.
        let clone = tunnel.clone();
        tokio::join!(tunnel.close(), clone.close());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_resolves_when_the_server_drains() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let calls = calls_in_flight(&far, &tunnel).await;
        let handler = far.handler.clone();
        let drained = tokio::spawn(async move { handler.drain(Duration::from_secs(3600)).await });
        // The drain notice alone makes this end refuse new calls.
        crate::support::eventually(|| !tunnel.is_ready()).await;
        assert_eq!(tunnel.end_reason(), None);
        assert_closed_to_calls(&far, &tunnel).await;
        far.probe.open("go on");
        assert_all_finish(calls).await;
        let reason = tunnel.ended().await;
        // The reason depends on which end finishes the drain first.
        let in_order = matches!(reason, EndReason::PeerDrained | EndReason::PeerClosed);
        assert!(in_order, "{reason:?}");
        drained.await.expect("no panic");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_resolves_when_the_server_dies() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let calls = calls_in_flight(&far, &tunnel).await;
        far.server.kill();
        let reason = tunnel.ended().await;
        let EndReason::Error(ConnectionError::TransportLost(_)) = reason else {
            panic!("the transport is lost, not {reason:?}");
        };
        assert_all_unavailable(calls).await;
        assert_closed_to_calls(&far, &tunnel).await;
        tunnel.close().await;
    })
    .await;
}

/// Traps 15 and 16: a lost connection fails calls of all kinds with UNAVAILABLE. The far end
/// detects the loss too and drops the handlers.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_ends_the_tunnel_on_both_sides() {
    guarded(async {
        let far = Far::start().await;
        let proxy = FaultProxy::to(far.server.address()).await;
        let channel = proxy.endpoint().connect().await;
        let channel = channel.expect("the far end accepts a connection");
        let tunnel = tunnel_client::ForwardTunnel::new(channel).open().await;
        let tunnel = tunnel.expect("the far end accepts a tunnel");
        let calls = calls_in_flight(&far, &tunnel).await;
        proxy.cut();
        assert_all_unavailable(calls).await;
        let reason = tunnel.ended().await;
        let EndReason::Error(ConnectionError::TransportLost(_)) = reason else {
            panic!("the transport is lost, not {reason:?}");
        };
        far.probe
            .until("in flight", |record| record.dropped == 4)
            .await;
        far.no_tunnels().await;
    })
    .await;
}

/// Trap 15: a server detects the death of its client only when its outbound half is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_leaves_no_handler_and_no_tunnel() {
    guarded(async {
        let far = Far::start().await;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = far.server.endpoint();
        let tunnel = runtime.spawn(async move {
            let channel = endpoint.connect().await.expect("a connection");
            tunnel_client::ForwardTunnel::new(channel).open().await
        });
        let tunnel = tunnel.await.expect("no panic").expect("it opens");
        let client = client(&tunnel);
        for kind in Kind::ALL {
            let client = client.clone();
            runtime.spawn(async move {
                let script = Script::named("orphan").receive_all().pend();
                run(&client, kind, &script, one_request()).await
            });
        }
        far.probe
            .until("orphan", |record| record.received == 4)
            .await;
        runtime.shutdown_background();
        far.probe
            .until("orphan", |record| record.dropped == 4)
            .await;
        far.no_tunnels().await;
        // This end reports the end although its tasks were dropped before they finished.
        tunnel.ended().await;
        tunnel.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_lets_calls_in_flight_finish_and_refuses_new_ones() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let calls = calls_in_flight(&far, &tunnel).await;
        let draining = tunnel.clone();
        let drained = tokio::spawn(async move { draining.drain(Duration::from_secs(3600)).await });
        crate::support::eventually(|| !tunnel.is_ready()).await;
        assert_closed_to_calls(&far, &tunnel).await;
        assert_eq!(tunnel.end_reason(), None);
        far.probe.open("go on");
        assert_all_finish(calls).await;
        assert_eq!(drained.await.expect("no panic"), EndReason::Drained);
        far.no_tunnels().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_outlast_a_drain_are_unavailable() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let calls = calls_in_flight(&far, &tunnel).await;
        tunnel.drain(Duration::from_millis(10)).await;
        assert_all_unavailable(calls).await;
        far.probe
            .until("in flight", |record| record.dropped == 4)
            .await;
        far.no_tunnels().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_end_of_a_tunnel_does_not_keep_it_open() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let closed = tunnel.ended();
        drop(tunnel);
        assert_eq!(closed.await, EndReason::Drained);
        far.no_tunnels().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_clone_lets_calls_in_flight_finish_and_then_closes_the_tunnel() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        let script = Script::named("kept").receive_all().wait("go on");
        let script = script.send_headers().send(100, 10_000, 1);
        let clone = tunnel.clone();
        let opened = {
            let probe = far.probe.clone();
            tokio::spawn(async move {
                probe.started("kept").await;
                drop(tunnel);
            })
        };
        let call = {
            let client = client(&clone);
            drop(clone);
            tokio::spawn(async move {
                let request = script.request(one());
                let ongoing = open(&client, Kind::Bidi, request).await;
                // From here on only the responses hold the tunnel.
                drop(client);
                ongoing.expect("headers come").outcome().await
            })
        };
        opened.await.expect("no panic");
        assert_eq!(far.handler.tunnels().len(), 1);
        far.probe.open("go on");
        let outcome = call.await.expect("no panic");
        assert_sent(outcome.expect_success(), 100, 10_000, 1);
        far.no_tunnels().await;
    })
    .await;
}

/// Like `tower`'s `oneshot`: the call holds the only clone of the channel.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_by_the_last_clone_keeps_the_tunnel_open_although_it_was_not_polled_yet() {
    guarded(async {
        let service = answers(|request| async { response(request.into_body()) });
        let far = Far::start_with(|builder| builder.add_service(service).build()).await;
        let tunnel = far.tunnel().await;
        let request = raw_request(tonic::body::Body::empty());
        let response = tunnel.oneshot(request).await;
        response.expect("the call is made");
        far.no_tunnels().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_has_a_unique_id_and_debug_output_without_secrets() {
    guarded(async {
        let far = Far::start().await;
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("authorization", "secret".parse().expect("legal"));
        let opening = far.opening().await.metadata(metadata);
        let first = opening.open().await.expect("it opens");
        let second = far.tunnel().await;
        assert_ne!(first.id(), second.id());
        assert_eq!(first.id(), first.clone().id());
        assert_eq!(first.info().direction(), Direction::Forward);
        assert!(first.is_ready());
        for text in [
            format!("{first:?}"),
            format!("{:?}", first.info()),
            format!("{:?}", far.handler.tunnels()),
            format!("{:?}", far.handler),
        ] {
            assert!(!text.contains("secret"), "{text}");
        }
        first.close().await;
        assert_ne!(first.id(), far.tunnel().await.id());
        assert_usable(&client(&second)).await;
    })
    .await;
}
