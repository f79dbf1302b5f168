//! Empty messages, empty streams, many messages, and messages in alternation.

use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::no_requests;
use crate::client::{call, open, run};
use crate::feed::Feed;
use crate::metadata::{assert_has, entry};
use crate::payload::{assert_pattern, assert_sent, received, request, requests};
use crate::proto::{self, Received, Script};
use crate::testing::assert_usable;
use crate::{Fixture, Kind, Path};

/// Empty messages are counted: none is lost and none is added.
pub async fn empty_messages_are_counted(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let sent = requests(1, kind.requests(10), 0);

    let script = Script::named("up").receive_all().summarize();
    let outcome = run(&fixture.client, kind, &script, sent.clone()).await;
    let tally = outcome.expect_success()[0].received;
    assert_eq!(tally, Some(received(&sent)));

    let count = kind.responses(10);
    let script = Script::named("down").receive_all().send(count, 0, 0);
    let outcome = run(&fixture.client, kind, &script, sent).await;
    assert_sent(outcome.expect_success(), count, 0, 0);
}

/// A request stream without a message.
pub async fn an_empty_request_stream_ends_cleanly(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("empty").receive_all().summarize();
    let outcome = call(&fixture.client, kind, script.request(no_requests())).await;
    let tally = outcome.expect_success()[0].received;
    assert_eq!(tally, Some(Received::empty()));
    assert_eq!(fixture.probe.record("empty").inputs_ended, 1);
}

/// A response stream without a message, with headers and trailers.
pub async fn an_empty_response_stream_ends_cleanly(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("empty")
        .header("x-header", "first")
        .trailer("x-trailer", "last")
        .receive_all();
    for script in [script.clone(), script.send_headers()] {
        let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
        assert_eq!(outcome.expect_success(), []);
        assert_has(outcome.expect_trailers(), &[entry("x-trailer", "last")]);
        let headers = outcome.headers.as_ref().expect("headers came");
        assert_has(headers, &[entry("x-header", "first")]);
    }
}

/// A bidirectional call without messages.
pub async fn a_bidi_call_without_any_message_succeeds(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let request = Script::named("silent").receive_all().request(no_requests());
    let outcome = call(&fixture.client, Kind::Bidi, request).await;
    assert_eq!(outcome.expect_success(), []);
    fixture.probe.finished("silent").await;
}

/// Headers reach the caller before any message is sent in either direction.
pub async fn headers_come_before_messages(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("early")
        .header("x-header", "early")
        .send_headers()
        .wait("headers came")
        .send(2, 50, 1);
    let (feed, _watch) = match kind {
        Kind::Bidi => Feed::open(vec![]),
        _ => Feed::open(requests(1, 1, 10)),
    };
    let ongoing = open(&fixture.client, kind, script.request(feed)).await;
    let ongoing = ongoing.expect("headers come");
    assert_has(&ongoing.headers, &[entry("x-header", "early")]);
    assert_eq!(fixture.probe.record("early").sent, 0);
    fixture.probe.open("headers came");
    assert_sent(ongoing.outcome().await.expect_success(), 2, 50, 1);
}

/// Each request is sent after the response to the previous one has arrived.
pub async fn bidi_messages_go_back_and_forth(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let (requests, stream) = mpsc::channel(1);
    let call = Script::named("talk").send_headers().echo_all();
    let call = call.request(ReceiverStream::new(stream));
    let mut ongoing = open(&fixture.client, Kind::Bidi, call)
        .await
        .expect("headers come");
    for seed in 0..200 {
        let size = 1 + usize::try_from(seed).expect("a small number") * 100;
        requests
            .send(request(seed, size))
            .await
            .expect("the call takes requests");
        let response = ongoing.expect_next().await;
        assert_pattern(&response.payload, seed, size);
    }
    drop(requests);
    assert_eq!(ongoing.outcome().await.expect_success(), []);
}

/// The handler sends responses only after the end of the requests.
pub async fn bidi_answers_after_the_end_of_the_requests(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("late")
        .receive_all()
        .wait("end")
        .send(50, 1000, 7);
    let client = fixture.client.clone();
    let late =
        tokio::spawn(async move { run(&client, Kind::Bidi, &script, requests(1, 5, 10)).await });
    let seen = fixture
        .probe
        .until("late", |record| record.inputs_ended == 1)
        .await;
    assert_eq!(seen.received, 5);
    fixture.probe.open("end");
    let outcome = late.await.expect("the call does not panic");
    assert_sent(outcome.expect_success(), 50, 1000, 7);
}

/// Ten thousand small messages in each direction arrive complete and in order.
pub async fn many_small_messages_stay_in_order(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let up = requests(1, kind.requests(10_000), 5);
    let down = kind.responses(10_000);

    let script = Script::named("up").receive_all().summarize();
    let outcome = run(&fixture.client, kind, &script, up.clone()).await;
    assert_eq!(outcome.expect_success()[0].received, Some(received(&up)));

    let script = Script::named("down").receive_all().send(down, 5, 3);
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 5)).await;
    assert_sent(outcome.expect_success(), down, 5, 3);
}

/// A thousand calls one after another, on one channel.
pub async fn a_thousand_calls_in_a_row_succeed(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    for seed in 0..1000 {
        let script = Script::named("row").echo_all();
        let outcome = run(
            &fixture.client,
            Kind::Unary,
            &script,
            vec![request(seed, 20)],
        )
        .await;
        assert_pattern(&outcome.expect_success()[0].payload, seed, 20);
    }
    assert_eq!(fixture.probe.record("row").finished, 1000);
}

/// A request stream that ends without a message, to a method that needs one.
pub async fn a_unary_call_without_a_request_is_refused(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    for kind in [Kind::Unary, Kind::ServerStream] {
        let mut grpc = Grpc::new(fixture.channel.clone());
        grpc.ready().await.expect("the channel is ready");
        let codec = ProstCodec::<proto::Request, proto::Response>::default();
        let method = PathAndQuery::from_static(kind.method());
        let request = Request::new(stream::empty());
        let status = match grpc.streaming(request, method, codec).await {
            Err(status) => status,
            Ok(_) => panic!("a {kind:?} call without a request should fail"),
        };
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert_eq!(status.message(), "Missing request message.");
    }
    assert_usable(&fixture.client).await;
}

/// A response that ends with OK and without a message, although the caller needs one.
pub async fn a_unary_call_without_a_response_fails(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let mut grpc = Grpc::new(fixture.channel.clone());
    grpc.ready().await.expect("the channel is ready");
    let codec = ProstCodec::<proto::Request, proto::Response>::default();
    let method = PathAndQuery::from_static(Kind::ServerStream.method());
    let request = Script::named("nothing")
        .receive_all()
        .request(request(1, 10));
    let status = match grpc.unary(request, method, codec).await {
        Err(status) => status,
        Ok(response) => panic!("the call should fail, not give {response:?}"),
    };
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(status.message(), "Missing response message.");
    assert_usable(&fixture.client).await;
}
