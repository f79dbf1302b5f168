//! Tunnels without sockets, for users' tests: the gateway's service is the channel of the other end.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tonic::Code;
use tunnel_client::{EndReason, ForwardChannel, ForwardTunnel, Gateway, ReverseTunnelServer};
use tunnel_conformance::client::{call, run};
use tunnel_conformance::payload::{assert_pattern, requests};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::service::scripted;
use tunnel_conformance::{Client, Kind, Probe, TestChannel};
use tunnel_server::TunnelServiceHandler;

use crate::support::{assert_usable, one_request};

const HOUR: Duration = Duration::from_secs(3600);

/// Fails a test that hangs, by a limit that paused time reaches at once.
async fn guarded(test: impl Future<Output = ()>) {
    let year = tokio::time::timeout(HOUR * 24 * 365, test).await;
    year.expect("the test hangs");
}

fn client<S, B>(channel: S) -> Client
where
    S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<B>>,
    S: Clone + Send + Sync + 'static,
    S::Error: Into<tower::BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    TestServiceClient::new(TestChannel::new(channel))
}

/// A client whose calls travel through a tunnel in memory, and what keeps the tunnel.
type Made = (Client, Box<dyn std::any::Any + Send>);

/// Tunnels of every kind, each with a handler of its own.
fn every_kind() -> [fn() -> BoxFuture<'static, Made>; 3] {
    fn handler() -> TunnelServiceHandler {
        let service = scripted(&Probe::default());
        TunnelServiceHandler::builder().add_service(service).build()
    }
    [
        || {
            Box::pin(async {
                let tunnel = ForwardTunnel::new(handler().service()).open().await;
                (client(tunnel.expect("accepted")), Box::new(()) as _)
            })
        },
        || {
            Box::pin(async {
                let gateway = Gateway::over(handler().service());
                let channel = ForwardChannel::builder(gateway).connect().await;
                (client(channel.expect("accepted")), Box::new(()) as _)
            })
        },
        || {
            Box::pin(async {
                let handler = handler();
                let device = ReverseTunnelServer::builder(Gateway::over(handler.service()))
                    .add_service(scripted(&Probe::default()))
                    .build();
                let handle = device.handle();
                tokio::spawn(device.run());
                handle.connected().await.expect("accepted");
                (client(handler.as_channel()), Box::new(handler) as _)
            })
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_in_memory_works_in_paused_time() {
    guarded(async {
        for make in every_kind() {
            let (client, _kept) = make().await;
            // Hours of heartbeats.
            sleep(2 * HOUR).await;
            assert_usable(&client).await;
            let start = Instant::now();
            let mut request = Script::named("late")
                .pend()
                .request(futures::stream::iter(one_request()));
            request.set_timeout(HOUR);
            let outcome = call(&client, Kind::Bidi, request).await;
            outcome.expect_failure(Code::DeadlineExceeded);
            assert!(start.elapsed() >= HOUR);
            assert_usable(&client).await;
        }
    })
    .await;
}

/// More than any window and buffer, in both directions at once, on one thread.
#[tokio::test]
async fn large_messages_cross_in_memory_in_both_directions_at_once() {
    guarded(async {
        for make in every_kind() {
            let (client, _kept) = make().await;
            let script = Script::named("both ways").echo_all();
            let outcome = run(&client, Kind::Bidi, &script, requests(5, 8, 3 << 20)).await;
            let echoed = outcome.expect_success();
            assert_eq!(echoed.len(), 8);
            assert_pattern(&echoed[0].payload, 5, 3 << 20);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn either_end_of_a_tunnel_in_memory_ends_the_other() {
    guarded(async {
        let handler = TunnelServiceHandler::builder().build();
        let tunnel = ForwardTunnel::new(handler.service()).open().await;
        drop(tunnel.expect("accepted"));
        until_no_tunnel(&handler).await;

        let tunnel = ForwardTunnel::new(handler.service()).open().await;
        let tunnel = tunnel.expect("accepted");
        handler.tunnels()[0].close_with(tonic::Status::ok(""));
        assert_eq!(tunnel.ended().await, EndReason::PeerClosed);
        until_no_tunnel(&handler).await;

        let device = ReverseTunnelServer::builder(Gateway::over(handler.service())).build();
        let handle = device.handle();
        let running = tokio::spawn(device.run());
        handle.connected().await.expect("accepted");
        running.abort();
        until_no_tunnel(&handler).await;

        let device = ReverseTunnelServer::builder(Gateway::over(handler.service())).build();
        let handle = device.handle();
        let serving = tokio::spawn(async move { device.serve().await });
        handle.connected().await.expect("accepted");
        handler.drain(HOUR).await;
        let ended = serving.await.expect("no panic").expect("it was open");
        assert!(
            matches!(ended, EndReason::PeerDrained | EndReason::PeerClosed),
            "{ended:?}"
        );
    })
    .await;
}

async fn until_no_tunnel(handler: &TunnelServiceHandler) {
    for tunnel in handler.tunnels() {
        tunnel.closed().await;
    }
    crate::support::eventually(|| handler.tunnels().is_empty()).await;
}
