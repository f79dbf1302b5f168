//! Calls of unknown methods, and handlers that panic.

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::client::{call, open, run};
use crate::feed::Feed;
use crate::payload::{assert_pattern, assert_sent, request, requests};
use crate::proto::{self, Script};
use crate::testing::assert_usable;
use crate::{Fixture, Kind, Path, TestChannel};

/// Makes a call of any method, which must fail before a message, and returns its status.
async fn status_of(
    channel: &TestChannel,
    method: &'static str,
    messages: impl Stream<Item = proto::Request> + Send + 'static,
) -> Status {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("the channel is ready");
    let codec = ProstCodec::<proto::Request, proto::Response>::default();
    let method_path = PathAndQuery::from_static(method);
    match grpc
        .streaming(Request::new(messages), method_path, codec)
        .await
    {
        Err(status) => status,
        Ok(response) => match response.into_inner().message().await {
            Err(status) => status,
            Ok(message) => panic!("{method} should fail, not give {message:?}"),
        },
    }
}

async fn assert_unimplemented(path: &dyn Path, methods: &[&'static str]) {
    let fixture = Fixture::start(path).await;
    for method in methods {
        let status = status_of(&fixture.channel, method, futures::stream::empty()).await;
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");

        let one = futures::stream::iter(vec![request(1, 100_000)]);
        let status = status_of(&fixture.channel, method, one).await;
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");

        let (feed, mut watch) = Feed::endless(1, 65_536);
        let status = status_of(&fixture.channel, method, feed).await;
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");
        watch.dropped().await;
    }
    assert_usable(&fixture.client).await;
}

/// A method that the service does not have.
pub async fn an_unknown_method_is_unimplemented(path: &dyn Path) {
    let methods = [
        "/tunnel.conformance.v1.TestService/NoSuchMethod",
        "/tunnel.conformance.v1.TestService/unary",
        "/tunnel.conformance.v1.TestService/Unary/More",
    ];
    assert_unimplemented(path, &methods).await;
}

/// A service that does not exist.
pub async fn an_unknown_service_is_unimplemented(path: &dyn Path) {
    let methods = [
        "/no.such.Service/Method",
        "/tunnel.conformance.v1.TestServic/Unary",
        "/tunnel.conformance.v1/TestService/Unary",
        "/word",
    ];
    assert_unimplemented(path, &methods).await;
}

/// A panic of the handler before any response ends only its own call, with INTERNAL.
pub async fn a_panic_before_headers_is_internal(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let client = fixture.client.clone();
    let other = tokio::spawn(async move {
        let script = Script::named("other").wait("on").echo_all();
        run(&client, Kind::Bidi, &script, requests(1, 5, 1000)).await
    });
    fixture.probe.started("other").await;

    let script = Script::named("panic")
        .receive_all()
        .panic("a panic on purpose");
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    outcome.expect_failure(Code::Internal);
    assert_eq!(outcome.messages, []);
    fixture.probe.dropped("panic").await;

    fixture.probe.open("on");
    let outcome = other.await.expect("the call does not panic");
    assert_sent(outcome.expect_success(), 5, 1000, 1);
    assert_usable(&fixture.client).await;
}

/// A handler panics between its responses. The responses before the panic arrive.
pub async fn a_panic_between_responses_is_internal(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("panic")
        .receive_all()
        .send(3, 1000, 1)
        .wait("three came")
        .panic("a panic on purpose");
    let request = script.request(futures::stream::iter(requests(1, 1, 10)));
    let mut ongoing = open(&fixture.client, kind, request)
        .await
        .expect("headers come");
    for seed in 1..=3 {
        assert_pattern(&ongoing.expect_next().await.payload, seed, 1000);
    }
    fixture.probe.open("three came");
    let outcome = ongoing.outcome().await;
    outcome.expect_failure(Code::Internal);
    assert_eq!(outcome.messages, []);
    assert_usable(&fixture.client).await;
}

/// A panic of the handler during an upload ends the call.
pub async fn a_panic_during_an_upload_is_internal(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let (feed, mut watch) = Feed::endless(1, 65_536);
    let script = Script::named("panic")
        .receive(3)
        .panic("a panic on purpose");
    let outcome = call(&fixture.client, kind, script.request(feed)).await;
    outcome.expect_failure(Code::Internal);
    watch.dropped().await;
    assert_usable(&fixture.client).await;
}
