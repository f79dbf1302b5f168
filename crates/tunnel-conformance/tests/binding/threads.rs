//! Calls on threads without a runtime. Plain tonic allows them.

use std::time::Duration;

use futures::StreamExt as _;
use futures::executor::block_on;
use futures::future::poll_immediate;
use tokio::sync::oneshot;
use tonic::Code;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tunnel_client::{Config, ForwardTunnel};
use tunnel_conformance::client::{call, open, run};
use tunnel_conformance::payload::requests;
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Kind, Probe, TcpServer, TestChannel};
use tunnel_server::{TunnelServiceHandler, WhenNoTunnel};

use crate::support::body::{Pieces, data, message};
use crate::support::raw_service::{answers, raw_call};
use crate::support::{Far, assert_usable, client, eventually, guarded, one, one_request};

/// Runs `work` on a thread without a runtime.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        assert!(tokio::runtime::Handle::try_current().is_err());
        let _ = done.send(work());
    });
    result.await.expect("no panic")
}

/// Makes calls of all kinds, with requests that are ready at once or arrive one by one.
fn make_calls(client: &Client) {
    for kind in Kind::ALL {
        for at_once in [true, false] {
            let sent = requests(1, kind.requests(30), 9_000);
            let messages = futures::stream::iter(sent).then(move |request| async move {
                if !at_once {
                    pending_once().await;
                }
                request
            });
            let script = Script::named("on a thread").receive_all().send(1, 10, 1);
            let request = script.request(messages);
            let outcome = block_on(call(client, kind, request));
            outcome.expect_success();
        }
        let mut request = Script::named("late").pend().request(one());
        request.set_timeout(Duration::from_millis(20));
        let outcome = block_on(call(client, kind, request));
        let status = outcome.end.expect_err("the deadline passes");
        // Plain tonic reports CANCELLED.
        assert!(matches!(
            status.code(),
            Code::DeadlineExceeded | Code::Cancelled
        ));
        let script = Script::named("dropped").receive(1).send_headers().pend();
        let ongoing = block_on(open(client, Kind::Bidi, script.request(one())));
        drop(ongoing.expect("headers come"));
    }
    block_on(assert_usable(client));
}

/// Is pending once.
async fn pending_once() {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_a_thread_without_a_runtime_work_as_without_a_tunnel() {
    guarded(async {
        let probe = Probe::default();
        let plain = TcpServer::start(Server::builder(), Routes::new(scripted(&probe))).await;
        let plain = TestServiceClient::new(TestChannel::new(plain.channel().await));
        on_a_thread(move || make_calls(&plain)).await;
        let far = Far::start().await;
        let tunnel = client(&far.tunnel().await);
        on_a_thread(move || make_calls(&tunnel)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_room_and_expire_on_a_thread_without_a_runtime() {
    guarded(async {
        let far = Far::start().await;
        let config = Config::builder().max_concurrent_streams(1).build();
        let opening = far.opening().await.config(config.expect("valid"));
        let tunnel = opening.open().await.expect("the far end accepts a tunnel");
        on_a_thread(move || {
            let client = client(&tunnel);
            let script = Script::named("occupies").receive(1).send_headers().pend();
            let occupying = block_on(open(&client, Kind::Bidi, script.request(one())));
            let occupying = occupying.expect("headers come");
            let mut request = Script::named("expires").request(one());
            request.set_timeout(Duration::from_millis(20));
            let outcome = block_on(call(&client, Kind::Unary, request));
            outcome.expect_failure(Code::DeadlineExceeded);
            let waits = Script::named("waits").receive_all();
            let mut waits = Box::pin(run(&client, Kind::Unary, &waits, one_request()));
            assert!(block_on(poll_immediate(waits.as_mut())).is_none());
            drop(occupying);
            block_on(waits).expect_success();
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_drains_and_is_dropped_on_a_thread_without_a_runtime() {
    guarded(async {
        let far = Far::start().await;
        let tunnel = far.tunnel().await;
        on_a_thread(move || {
            block_on(tunnel.drain(Duration::from_secs(3600)));
            let refused = block_on(raw_call(&tunnel, Body::empty()));
            assert_eq!(refused.expect_err("over").code(), Code::Unavailable);
        })
        .await;
        let tunnel = far.tunnel().await;
        on_a_thread(move || drop(tunnel)).await;
        far.no_tunnels().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_a_reverse_tunnel_on_a_thread_without_a_runtime() {
    guarded(async {
        let handler = TunnelServiceHandler::builder().build();
        let channel = handler
            .key_as_channel("nobody")
            .when_no_tunnel(WhenNoTunnel::Wait);
        on_a_thread(move || {
            let short = Duration::from_millis(20);
            let late = block_on(channel.wait_for_ready(short));
            assert_eq!(late.expect_err("nobody").code(), Code::DeadlineExceeded);
            let client = TestServiceClient::new(TestChannel::new(channel));
            let mut request = Script::named("nobody").request(one());
            request.set_timeout(short);
            let outcome = block_on(call(&client, Kind::Unary, request));
            outcome.expect_failure(Code::DeadlineExceeded);
        })
        .await;
    })
    .await;
}

/// The task that sends the request and the tunnel's own task are dropped in either order.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_tunnel_loses_its_runtime_is_unavailable() {
    guarded(async {
        let far = Far::start_with(|builder| {
            let pends = answers(|request| async move {
                let _request = request;
                std::future::pending().await
            });
            builder.add_service(pends).build()
        });
        let far = far.await;
        for _ in 0..20 {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let endpoint = far.server.endpoint();
            let tunnel = runtime.spawn(async move {
                let channel = endpoint.connect().await.expect("a connection");
                ForwardTunnel::new(channel).open().await
            });
            let tunnel = tunnel.await.expect("no panic").expect("it opens");
            let caller = tunnel.clone();
            let call = std::thread::spawn(move || {
                let body = Pieces::then_pending(vec![data(message(b"first"))]);
                block_on(raw_call(&caller, body))
            });
            eventually(|| tunnel.stats().bytes_sent > 0).await;
            runtime.shutdown_background();
            let call = tokio::task::spawn_blocking(|| call.join().expect("no panic"));
            let status = call.await.expect("no panic").map(drop).expect_err("lost");
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        }
    })
    .await;
}
