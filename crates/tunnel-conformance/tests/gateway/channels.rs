//! The channel over reverse tunnels, as its users see it.

use std::time::Duration;

use futures::future::{join_all, poll_immediate};
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::service::interceptor::{InterceptedService, InterceptorLayer};
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tower::{Service, ServiceBuilder, ServiceExt};
use tunnel_conformance::client::{call, run};
use tunnel_conformance::payload::{assert_sent, request, requests};
use tunnel_conformance::proto::Script;
use tunnel_conformance::proto::test_service_client::TestServiceClient;
use tunnel_conformance::{Kind, Probe, TcpServer, TestChannel};
use tunnel_server::{
    ReverseChannel, ReverseResponseFuture, ServedBy, TunnelServiceHandler, WhenNoTunnel,
    server_for_tunnels_with,
};

use crate::support::by_hand;
use crate::support::device::Dial;
use crate::support::{
    NEVER, a_call, client, eventually, guarded, handler, local_device, one_request, served,
};

/// A channel can be kept in a struct, cloned, sent and shared.
struct Keeper {
    channel: ReverseChannel,
    client: TestServiceClient<ReverseChannel>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_can_be_named_cloned_sent_and_shared() {
    fn anywhere<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        anywhere(&channel);
        anywhere(&handler);
        let keeper = Keeper {
            client: TestServiceClient::new(channel.clone()),
            channel,
        };
        let mut client = keeper.client.clone();
        let script = Script::named("kept").receive_all().send(1, 1, 1);
        let elsewhere = tokio::spawn(async move {
            let response = client.unary(script.request(request(1, 1))).await;
            response.expect("the call succeeds");
        });
        elsewhere.await.expect("no panic");
        assert!(device.is(served(&keeper.channel, "served").await.tunnel()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interceptors_see_every_call_and_may_refuse_it() {
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        let sign = |mut request: Request<()>| {
            let signed = "by me".parse().expect("legal");
            request.metadata_mut().insert("signed", signed);
            match request.metadata().get("refuse") {
                Some(_) => Err(Status::permission_denied("not that one")),
                None => Ok(request),
            }
        };
        let with = TestServiceClient::with_interceptor(channel.clone(), sign);
        let around = InterceptedService::new(channel.clone(), sign);
        let layered = ServiceBuilder::new()
            .layer(InterceptorLayer::new(sign))
            .service(channel);
        for kind in Kind::ALL {
            let script = Script::named("signed").receive_all().report();
            let outcomes = [
                call(&with, kind, script.request(crate::support::one())).await,
                call(
                    &TestServiceClient::new(around.clone()),
                    kind,
                    script.request(crate::support::one()),
                )
                .await,
                call(
                    &TestServiceClient::new(layered.clone()),
                    kind,
                    script.request(crate::support::one()),
                )
                .await,
            ];
            for outcome in outcomes {
                let metadata = &outcome.expect_success()[0].metadata;
                assert!(metadata.iter().any(|entry| entry.key == "signed"));
            }
            let mut refused = Script::named("refused").request(crate::support::one());
            refused
                .metadata_mut()
                .insert("refuse", "yes".parse().expect("legal"));
            let outcome = call(&with, kind, refused).await;
            outcome.expect_failure(Code::PermissionDenied);
        }
        assert_eq!(device.probe.record("refused").started, 0);
    })
    .await;
}

/// The channel returns the device's response with an extension of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_keeps_its_headers_and_its_trailers() {
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        let script = Script::named("metadata")
            .receive_all()
            .header("one", "1")
            .trailer("two", "2")
            .send(3, 50_000, 1);
        let mut client = TestServiceClient::new(channel);
        let response = client.server_stream(script.request(request(1, 1))).await;
        let response = response.expect("headers come");
        let by = response.extensions().get::<ServedBy>().expect("it says so");
        assert!(device.is(by.tunnel()) && by.retries() == 0);
        assert_eq!(response.metadata().get("one").expect("sent"), "1");
        let mut messages = response.into_inner();
        let mut received = Vec::new();
        while let Some(message) = messages.message().await.expect("it succeeds") {
            received.push(message);
        }
        assert_sent(&received, 3, 50_000, 1);
        let trailers: MetadataMap = messages.trailers().await.expect("read").unwrap_or_default();
        assert_eq!(trailers.get("two").expect("sent"), "2");
    })
    .await;
}

/// The channel follows the contract of a tower service.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_begins_when_it_is_polled_and_is_over_once() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut channel = handler.key_as_channel("device-7");
        let request = || {
            let request = http::Request::post(Kind::Unary.method()).body(Body::empty());
            request.expect("legal")
        };
        // The call is made before the tunnel opens and polled afterwards.
        let early: ReverseResponseFuture = channel.call(request());
        assert!(format!("{early:?}").contains("new"));
        drop(channel.call(request()));
        let device = local_device(&handler, "device-7").await;
        assert_eq!(device.tunnel.stats().streams_total, 0);
        let mut early = Box::pin(early);
        early.as_mut().await.expect("the call is made");
        assert!(format!("{early:?}").contains("done"));
        let again = early.await.expect_err("it has resolved");
        assert_eq!(again.code(), Code::Internal);

        let mut waiting = Box::pin(
            handler
                .key_as_channel("nobody")
                .when_no_tunnel(WhenNoTunnel::Wait)
                .oneshot(request()),
        );
        assert!(poll_immediate(waiting.as_mut()).await.is_none());
        assert_eq!(handler.kept_keys(), 3);
        drop(waiting);
        assert_eq!(handler.kept_keys(), 2);
    })
    .await;
}

/// A request that the wire cannot carry is refused at this end, on any tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_no_tunnel_could_carry_fails_at_once() {
    guarded(async {
        let handler = handler(|builder| builder);
        let device = local_device(&handler, "device-7").await;
        let channel = handler.key_as_channel("device-7");
        let mut large = Script::named("large").request(crate::support::one());
        let value = "x".repeat(100_000).parse().expect("legal");
        large.metadata_mut().insert("large", value);
        let outcome = call(&client(&channel), Kind::Unary, large).await;
        outcome.expect_failure(Code::ResourceExhausted);
        assert_eq!(device.probe.record("large").started, 0);
        a_call(&channel, "after").await.expect_success();
    })
    .await;
}

/// Credentials and requests are not logged.
#[tokio::test(flavor = "multi_thread")]
async fn debug_output_contains_no_secrets() {
    guarded(async {
        let handler = handler(|builder| builder);
        let dial = Dial::new(&Probe::default()).named("device-7");
        let dial = dial.with("authorization", "s3cret");
        let mut events = handler.events();
        let device = dial.dial(handler.service()).await.expect("accepted");
        let channel = handler.key_as_channel("device-7");
        channel.wait_for_ready(NEVER).await.expect("ready");
        let opened = futures::StreamExt::next(&mut events).await;
        let served = served(&channel, "served").await;
        let mut by_hand = channel.clone();
        let secret = Body::new(http_body_of("s3cret"));
        let request = http::Request::post("/any.Service/Any").header("authorization", "s3cret");
        let mut call = Box::pin(by_hand.call(request.body(secret).expect("legal")));
        let new = format!("{call:?}");
        let _ = poll_immediate(call.as_mut()).await;
        for text in [
            new,
            format!("{call:?}"),
            format!("{channel:?}"),
            format!("{handler:?}"),
            format!("{:?}", handler.service()),
            format!("{:?}", handler.tunnels()),
            format!("{opened:?}"),
            format!("{served:?}"),
            format!("{:?}", TunnelServiceHandler::builder()),
        ] {
            assert!(!text.contains("s3cret"), "{text}");
        }
        drop(device);
    })
    .await;
}

fn http_body_of(
    text: &'static str,
) -> impl http_body::Body<Data = bytes::Bytes, Error = Status> + Send {
    by_hand::body::Pieces::new(futures::stream::iter(vec![by_hand::body::data(text)]))
}

/// The calls go through the tunnels of several devices at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_of_all_kinds_leave_nothing_behind() {
    guarded(async {
        let handler = handler(|builder| builder);
        let mut devices = Vec::new();
        for _ in 0..3 {
            devices.push(local_device(&handler, "device-7").await);
        }
        let before = Handle::current().metrics().num_alive_tasks();
        let channel = handler.key_as_channel("device-7");
        let calls = (0..200)
            .zip(Kind::ALL.into_iter().cycle())
            .map(|(n, kind)| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    let client = client(&channel);
                    let name = format!("call {n}");
                    let sent = requests(1, kind.requests(5), 20_000);
                    match n % 4 {
                        0 | 1 => {
                            let script = Script::named(name).receive_all().send(1, 30_000, 1);
                            let outcome = run(&client, kind, &script, sent).await;
                            assert_sent(outcome.expect_success(), 1, 30_000, 1);
                        }
                        2 => {
                            let script = Script::named(name).receive(1).fail(Code::DataLoss, "no");
                            let outcome = run(&client, kind, &script, sent).await;
                            outcome.expect_failure(Code::DataLoss);
                        }
                        _ => {
                            let script = Script::named(name).receive_all().pend();
                            let mut request = script.request(futures::stream::iter(sent));
                            request.set_timeout(Duration::from_millis(30));
                            let outcome = call(&client, kind, request).await;
                            outcome.expect_failure(Code::DeadlineExceeded);
                        }
                    }
                })
            });
        for done in join_all(calls.collect::<Vec<_>>()).await {
            done.expect("no panic");
        }
        eventually(|| handler.kept_calls() == 0).await;
        eventually(|| Handle::current().metrics().num_alive_tasks() <= before).await;
        for (_, stats) in handler.stats() {
            assert_eq!(
                (stats.streams, stats.queued_bytes, stats.deadlines),
                (0, 0, 0)
            );
        }
        let client = TestServiceClient::new(TestChannel::new(channel));
        let script = Script::named("last").receive_all().send(1, 1, 1);
        run(&client, Kind::Unary, &script, one_request())
            .await
            .expect_success();
    })
    .await;
}

/// Times beyond the range of the clock count as none.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_endless_keepalive_timeout_serves() {
    guarded(async {
        let handler = handler(|builder| builder);
        for never in [Duration::MAX, Duration::from_secs(u64::MAX / 4)] {
            let server = server_for_tunnels_with(Server::builder(), never);
            let server = TcpServer::start(server, Routes::new(handler.service())).await;
            let dial = Dial::new(&Probe::default()).named("device-7");
            let device = dial.dial(server.channel().await).await.expect("accepted");
            crate::support::ready(&handler, &device).await;
            a_call(&handler.as_channel(), "served")
                .await
                .expect_success();
            device.hang_up();
            crate::support::no_tunnels(&handler).await;
        }
    })
    .await;
}
