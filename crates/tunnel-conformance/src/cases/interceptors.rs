//! Interceptors and tower layers on both sides, as users of tonic write them.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{LayerExt, Routes};
use tonic::{Code, Request, Status};
use tower::util::MapResponseLayer;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::client::{call, run};
use crate::metadata::{assert_entries, assert_has, assert_has_not, entry};
use crate::payload::{MAX_MESSAGE, assert_sent, details, request, requests};
use crate::proto::Script;
use crate::proto::test_service_client::TestServiceClient;
use crate::service::{Mark, scripted};
use crate::testing::assert_usable;
use crate::{Fixture, Kind, Offer, Path};

/// The status with which an interceptor refuses a call.
fn refusal() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-reason", "no pass".parse().expect("legal metadata"));
    Status::with_details_and_metadata(
        Code::Unauthenticated,
        "who are you?",
        refusal_details(),
        metadata,
    )
}

fn refusal_details() -> Bytes {
    details(Code::Unauthenticated, "who are you?")
}

/// A binary value that every implementation passes on.
fn ascii() -> Vec<u8> {
    (0..128).collect()
}

#[track_caller]
fn assert_refused(status: &Status) {
    assert_eq!(status.message(), "who are you?");
    assert_eq!(status.details(), refusal_details());
    assert_has(status.metadata(), &[entry("x-reason", "no pass")]);
}

/// A client interceptor adds metadata to every call.
pub async fn a_client_interceptor_adds_metadata(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let intercept = |mut request: Request<()>| {
        let text = "added".parse().expect("legal metadata");
        request.metadata_mut().insert("x-added", text);
        let bytes = tonic::metadata::MetadataValue::from_bytes(&ascii());
        request.metadata_mut().insert_bin("x-added-bin", bytes);
        Ok(request)
    };
    let client = TestServiceClient::with_interceptor(fixture.channel.clone(), intercept);
    let messages = futures::stream::iter(requests(1, 1, 10));
    let request = Script::named("report")
        .receive_all()
        .report()
        .request(messages);
    let outcome = call(&client, kind, request).await;
    let added = [entry("x-added", "added"), entry("x-added-bin", ascii())];
    assert_entries(&outcome.expect_success()[0].metadata, &added);
}

/// A client interceptor refuses a call. The caller gets the status, and the server gets nothing.
pub async fn a_client_interceptor_refuses(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let refuse = |_: Request<()>| Err(refusal());
    let client = TestServiceClient::with_interceptor(fixture.channel.clone(), refuse);
    let messages = futures::stream::iter(requests(1, 1, 10));
    let request = Script::named("refused").receive_all().request(messages);
    let outcome = call(&client, kind, request).await;
    let status = outcome.expect_failure(Code::Unauthenticated);
    assert_eq!(status.message(), "who are you?");
    assert_usable(&fixture.client).await;
    assert_eq!(fixture.probe.record("refused").started, 0);
}

/// A server interceptor sees the request, and the extensions that it sets reach the handler.
pub async fn a_server_interceptor_reaches_the_handler(path: &dyn Path, kind: Kind) {
    let intercept = |mut request: Request<()>| {
        let seen = request.metadata().get("x-token").cloned();
        let seen = seen.ok_or_else(refusal)?;
        let mark = Mark(format!("{seen:?} was seen"));
        request.extensions_mut().insert(mark);
        request.metadata_mut().insert("x-intercepted", seen);
        Ok(request)
    };
    let fixture = Fixture::start_with(path, |probe| {
        Offer::new(Routes::new(InterceptedService::new(
            scripted(probe),
            intercept,
        )))
    })
    .await;
    let messages = futures::stream::iter(requests(1, 1, 10));
    let mut request = Script::named("report")
        .receive_all()
        .report()
        .request(messages);
    let token = "pass".parse().expect("legal metadata");
    request.metadata_mut().insert("x-token", token);
    let outcome = call(&fixture.client, kind, request).await;
    let expected = [
        entry("x-token", "pass"),
        entry("x-intercepted", "pass"),
        entry(Mark::KEY, "\"pass\" was seen"),
    ];
    assert_entries(&outcome.expect_success()[0].metadata, &expected);
}

/// A server interceptor refuses with details and metadata. The handler never starts.
pub async fn a_server_interceptor_refuses(path: &dyn Path, kind: Kind) {
    let refuse = |request: Request<()>| match request.metadata().get("x-token") {
        Some(_) => Ok(request),
        None => Err(refusal()),
    };
    let fixture = Fixture::start_with(path, |probe| {
        Offer::new(Routes::new(InterceptedService::new(
            scripted(probe),
            refuse,
        )))
    })
    .await;
    // A small request, and a request that is refused before it has arrived completely.
    for size in [10, MAX_MESSAGE / 2] {
        let script = Script::named("refused").receive_all().send(1, 10, 1);
        let outcome = run(&fixture.client, kind, &script, vec![request(1, size)]).await;
        assert_refused(outcome.expect_failure(Code::Unauthenticated));
        assert_eq!(outcome.messages, []);
    }
    assert_eq!(fixture.probe.record("refused").started, 0);

    let script = Script::named("let in").receive_all().send(1, 10, 1);
    let mut allowed = script.request(futures::stream::iter(requests(1, 1, 10)));
    let token = "pass".parse().expect("legal metadata");
    allowed.metadata_mut().insert("x-token", token);
    let outcome = call(&fixture.client, kind, allowed).await;
    assert_sent(outcome.expect_success(), 1, 10, 1);
}

const ADDED: HeaderName = HeaderName::from_static("x-layer");

fn routes_with_layer<S>(service: S) -> Routes
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let layer = ServiceBuilder::new()
        .map_request(|mut request: http::Request<Body>| {
            let mark = Mark(request.uri().path().to_owned());
            request.extensions_mut().insert(mark);
            let value = HeaderValue::from_static("on the way in");
            request.headers_mut().insert(ADDED, value);
            request
        })
        .layer(MapResponseLayer::new(
            |mut response: http::Response<Body>| {
                let value = HeaderValue::from_static("on the way out");
                response.headers_mut().insert(ADDED, value);
                response
            },
        ))
        .into_inner();
    Routes::new(layer.named_layer(service))
}

/// A tower layer around the server's service sees the URI path of calls, and can add metadata to
/// requests and responses.
pub async fn a_server_layer_sees_every_call(path: &dyn Path, kind: Kind) {
    let fixture =
        Fixture::start_with(path, |probe| Offer::new(routes_with_layer(scripted(probe)))).await;
    let script = Script::named("report").receive_all().report();
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    let expected = [
        entry("x-layer", "on the way in"),
        entry(Mark::KEY, kind.method()),
    ];
    assert_entries(&outcome.expect_success()[0].metadata, &expected);
    let headers = outcome.headers.as_ref().expect("headers came");
    assert_has(headers, &[entry("x-layer", "on the way out")]);
}

/// A tower layer around the channel can add metadata to requests and responses.
pub async fn a_client_layer_sees_every_call(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let channel = fixture
        .channel
        .clone()
        .map_request(|mut request: http::Request<Body>| {
            let value = HeaderValue::from_static("on the way in");
            request.headers_mut().insert(ADDED, value);
            request
        })
        .map_response(|mut response: http::Response<Body>| {
            let value = HeaderValue::from_static("on the way out");
            response.headers_mut().insert(ADDED, value);
            response
        });
    let client = TestServiceClient::new(channel);
    let messages = futures::stream::iter(requests(1, 1, 10));
    let request = Script::named("report")
        .receive_all()
        .report()
        .request(messages);
    let outcome = call(&client, kind, request).await;
    let expected = [entry("x-layer", "on the way in")];
    assert_entries(&outcome.expect_success()[0].metadata, &expected);
    let headers = outcome.headers.as_ref().expect("headers came");
    assert_has(headers, &[entry("x-layer", "on the way out")]);

    // Without the layer nothing is added.
    let script = Script::named("report").receive_all().report();
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    outcome.expect_success();
    assert_has_not(outcome.headers.as_ref().expect("headers came"), "x-layer");
}
