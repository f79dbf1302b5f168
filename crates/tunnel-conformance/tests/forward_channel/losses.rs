//! Tunnels that are lost and reopened.

use std::time::Duration;

use tonic::Code;
use tunnel_client::{Backoff, LinkState, StopReason};
use tunnel_conformance::client::open;
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{FaultProxy, Kind, Probe, TestChannel};

use crate::support::{
    Backend, LongCall, NEVER, assert_usable, channel, client, guarded, short_call, tunnel_of,
};

/// As with plain tonic, calls in flight are lost and later calls succeed.
#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_lost_with_their_tunnel_and_the_next_ones_are_not() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start(&probe).await;
        let link = FaultProxy::to(backend.server.address()).await;
        let kept = channel(link.endpoint()).connect().await.expect("it opens");
        let plain = link.endpoint().connect().await.expect("it connects");
        let plain = TestServiceClient::new(TestChannel::new(plain));
        for round in 0..5 {
            let before = tunnel_of(&kept).expect("one tunnel");
            let clients = [&client(&kept), &plain];
            let names = [format!("kept {round}"), format!("plain {round}")];
            let kept_call = LongCall::begin(clients[0], &probe, &names[0]).await;
            let plain_call = LongCall::begin(clients[1], &probe, &names[1]).await;
            link.reset();
            for lost in [kept_call, plain_call] {
                assert!(lost.outcome().await.end.is_err());
            }
            for client in clients {
                assert_usable(client).await;
            }
            let after = tunnel_of(&kept).expect("one tunnel");
            assert_ne!(before, after, "a new tunnel has a new id");
        }
    })
    .await;
}

/// A call makes its own attempt, as in plain tonic, even if the links would wait for hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_while_nobody_answers_and_succeeds_once_somebody_does() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start(&probe).await;
        let link = FaultProxy::to(backend.server.address()).await;
        let backoff = Backoff::default()
            .initial(Duration::from_millis(1))
            .cap(NEVER)
            .healthy_after(NEVER);
        let kept = channel(link.endpoint()).backoff(backoff);
        let kept = client(&kept.connect().await.expect("it opens"));
        let plain = link.endpoint().connect().await.expect("it connects");
        let plain = TestServiceClient::new(TestChannel::new(plain));
        for _ in 0..3 {
            link.set_target(None);
            link.reset();
            for client in [&kept, &plain] {
                // The first calls may have been in flight when the connection was lost.
                for _ in 0..20 {
                    let outcome = short_call(client).await;
                    assert!(outcome.end.is_err());
                }
            }
            let outcome = short_call(&kept).await;
            outcome.expect_failure(Code::Unavailable);
            link.set_target(Some(backend.server.address()));
            for client in [&kept, &plain] {
                assert_usable(client).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_fails_as_plain_tonic_does_where_nobody_answers() {
    guarded(async {
        let link = FaultProxy::to(([127, 0, 0, 1], 1).into()).await;
        link.set_target(None);
        let kept = channel(link.endpoint()).connect().await;
        let error = tonic::Status::from(kept.expect_err("nobody answers"));
        assert_eq!(error.code(), Code::Unavailable);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_of_two_is_enough_to_connect() {
    guarded(async {
        let nobody = FaultProxy::to(([127, 0, 0, 1], 1).into()).await;
        nobody.set_target(None);
        let backend = Backend::start(&Probe::default()).await;
        let kept = channel(nobody.endpoint()).gateway(backend.server.endpoint());
        let kept = kept.connect().await.expect("one of them answers");
        for _ in 0..10 {
            assert_usable(&client(&kept)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_refusal_fails_calls_at_once_with_its_own_code() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start_with(&probe, |builder| {
            builder.admit(|_| async { Err(tonic::Status::permission_denied("not you")) })
        });
        let backend = backend.await;
        let backoff = Backoff::default().refused_cap(NEVER);
        let kept = channel(backend.server.endpoint()).backoff(backoff);
        let kept = kept.connect_lazy();
        for _ in 0..3 {
            let outcome = short_call(&client(&kept)).await;
            let status = outcome.expect_failure(Code::PermissionDenied);
            assert!(status.message().contains("not you"), "{status}");
        }
        assert_eq!(kept.handle().links()[0].attempts(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_clone_lets_calls_finish_and_leaves_nothing() {
    guarded(async {
        let probe = Probe::default();
        let backend = Backend::start(&probe).await;
        let kept = channel(backend.server.endpoint()).connect().await;
        let kept = kept.expect("it opens");
        let handle = kept.handle();
        let script = Script::named("last").send_headers().wait("go on");
        let call = script
            .receive_all()
            .request(tokio_stream::iter([request(1, 1)]));
        let call = open(&client(&kept), Kind::ServerStream, call).await;
        let call = call.expect("headers come");
        drop(kept);
        assert_eq!(handle.stopped().await, StopReason::Dropped);
        assert_eq!(backend.handler.tunnels().len(), 1);
        probe.open("go on");
        call.outcome().await.expect_success();
        backend.has(0).await;
        let mut links = handle.watch();
        let stopped = |state: &LinkState| matches!(state, LinkState::Stopped(_));
        let _ = links.wait_for(|links| stopped(links[0].state())).await;
    })
    .await;
}
