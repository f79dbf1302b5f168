//! Calls that wait for a tunnel.

use std::time::Duration;

use tonic::Code;
use tunnel_client::{WaitForReady, WhenNoTunnel, is_safe_to_retry};
use tunnel_conformance::payload::request;
use tunnel_conformance::proto::Script;
use tunnel_conformance::{FaultProxy, Probe};

use crate::support::{
    Backend, NEVER, assert_usable, channel, client, eventually, guarded, short_call,
};

/// An address without a listener.
async fn nobody() -> FaultProxy {
    let link = FaultProxy::to(([127, 0, 0, 1], 1).into()).await;
    link.set_target(None);
    link
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_tunnel_outlast_failed_attempts() {
    guarded(async {
        let link = nobody().await;
        let kept = channel(link.endpoint()).when_no_tunnel(WhenNoTunnel::Wait);
        let kept = kept.connect_lazy();
        let waiting = tokio::spawn({
            let client = client(&kept);
            async move { assert_usable(&client).await }
        });
        let handle = kept.handle();
        eventually(|| handle.links()[0].attempts() > 5).await;
        let backend = Backend::start(&Probe::default()).await;
        link.set_target(Some(backend.server.address()));
        waiting.await.expect("the call succeeds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_has_its_deadline_and_can_be_dropped() {
    guarded(async {
        let link = nobody().await;
        let kept = channel(link.endpoint()).when_no_tunnel(WhenNoTunnel::Wait);
        let mut client = client(&kept.connect_lazy());
        let mut call = Script::named("late").echo_all().request(request(1, 1));
        call.set_timeout(Duration::from_millis(50));
        let status = client.unary(call).await.expect_err("nobody answers");
        assert_eq!(status.code(), Code::DeadlineExceeded);

        let mut call = Script::named("dropped").echo_all().request(request(1, 1));
        call.set_timeout(NEVER);
        let mut dropped = Box::pin(client.unary(call));
        assert!(futures::poll!(&mut dropped).is_pending());
        drop(dropped);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_wait_fail_at_once_and_were_not_sent() {
    guarded(async {
        let link = nobody().await;
        // The server accepts connections and stays silent, so the attempt goes on.
        let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let silent = silent.expect("a free port");
        link.set_target(Some(silent.local_addr().expect("bound")));
        let kept = channel(link.endpoint()).when_no_tunnel(WhenNoTunnel::Fail);
        let kept = kept.open_timeout(NEVER).connect_lazy();
        let outcome = short_call(&client(&kept)).await;
        assert!(is_safe_to_retry(outcome.expect_failure(Code::Unavailable)));

        // A call can override the setting.
        let mut call = Script::named("waits").echo_all().request(request(1, 1));
        call.extensions_mut().insert(WaitForReady(true));
        let mut kept_client = client(&kept);
        let mut waits = Box::pin(kept_client.unary(call));
        assert!(futures::poll!(&mut waits).is_pending());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_waiting_calls_fail_when_the_channel_is_closed() {
    guarded(async {
        let link = nobody().await;
        let kept = channel(link.endpoint()).when_no_tunnel(WhenNoTunnel::Wait);
        let kept = kept.connect_lazy();
        let waiting = tokio::spawn({
            let client = client(&kept);
            async move { short_call(&client).await }
        });
        eventually(|| kept.handle().links()[0].attempts() > 2).await;
        kept.handle().close().await;
        let outcome = waiting.await.expect("it does not panic");
        outcome.expect_failure(Code::Unavailable);
        short_call(&client(&kept))
            .await
            .expect_failure(Code::Unavailable);
    })
    .await;
}
