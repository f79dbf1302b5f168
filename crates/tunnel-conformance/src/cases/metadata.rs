//! Headers, trailers and request metadata.

use tonic::Request;

use crate::client::{call, run};
use crate::metadata::{
    append, assert_entries, assert_has, assert_has_not, entries, entry, every_byte, values,
};
use crate::payload::requests;
use crate::proto::{Entry, Script};
use crate::{Fixture, Kind, Path};

/// Text entries with every kind of printable value.
fn text() -> Vec<Entry> {
    let printable: Vec<u8> = (0x21..0x7f).collect();
    vec![
        entry("x-plain", "value"),
        entry("x-twice", "one"),
        entry("x-between", "-"),
        entry("x-twice", "two"),
        entry("x-empty", ""),
        entry(
            "x-punctuation",
            [&printable[..], b" ", &printable[..]].concat(),
        ),
        entry("x-long", "a".repeat(4096)),
        entry("x_under.score-0", "legal"),
    ]
}

/// Text with bytes beyond ASCII, which a header allows too, and keys of gRPC that a transport must
/// pass on.
fn unusual() -> Vec<Entry> {
    vec![
        entry("x-utf8", "é☃🦀"),
        entry("x-not-utf8", [0xff, 0xfe, 0x80]),
        entry("x-mixed", "text"),
        entry("x-mixed", [0xe9, b't', 0xe9]),
        entry("x-mixed", "été"),
        entry("grpc-previous-rpc-attempts", "2"),
        entry("grpc-retry-pushback-ms", "100"),
        entry("grpc-trace-bin", [0, 1, 255]),
        entry("grpc-tags-bin", [255, 0]),
    ]
}

/// Binary entries, some of them not valid as text and some that look like text.
fn binary() -> Vec<Entry> {
    vec![
        entry("x-every-byte-bin", every_byte()),
        entry("x-twice-bin", [0]),
        entry("x-twice-bin", [255]),
        entry("x-empty-bin", []),
        entry("x-ascii-bin", "text, with a comma"),
        entry("x-latin-bin", [0xc3, 0xa9]),
        entry("x-utf8-bin", "é☃🦀"),
        entry("x-bad-utf8-bin", [0xff, 0xfe, 0x80, 0xc0]),
        entry("x-base64-bin", "AAECAw=="),
        entry("x-zeros-bin", [0; 64]),
    ]
}

/// A script that sends these headers and trailers.
fn sending(headers: Vec<Entry>, trailers: Vec<Entry>) -> Script {
    Script {
        headers,
        trailers,
        ..Script::named("metadata").receive_all()
    }
}

async fn assert_request_metadata(path: &dyn Path, kind: Kind, sent: Vec<Entry>) {
    let fixture = Fixture::start(path).await;
    let messages = futures::stream::iter(requests(1, 1, 10));
    let mut request = Script::named("report")
        .receive_all()
        .report()
        .request(messages);
    append(request.metadata_mut(), &sent).expect("legal metadata");
    let outcome = call(&fixture.client, kind, request).await;
    assert_entries(&outcome.expect_success()[0].metadata, &sent);
}

/// Text metadata of a request reaches the handler.
pub async fn request_text_arrives(path: &dyn Path, kind: Kind) {
    assert_request_metadata(path, kind, text()).await;
}

/// Unusual metadata of a request reaches the handler.
pub async fn unusual_request_metadata_arrives(path: &dyn Path, kind: Kind) {
    assert_request_metadata(path, kind, unusual()).await;
}

/// Binary metadata of a request reaches the handler, with any bytes.
pub async fn request_bytes_arrive(path: &dyn Path, kind: Kind) {
    assert_request_metadata(path, kind, binary()).await;
}

async fn assert_headers(path: &dyn Path, kind: Kind, sent: Vec<Entry>) {
    let fixture = Fixture::start(path).await;
    let script = sending(sent.clone(), vec![]).send(1, 10, 1);
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    outcome.expect_success();
    assert_has(outcome.headers.as_ref().expect("headers came"), &sent);
    if kind.downloads() {
        for Entry { key, .. } in &sent {
            assert_has_not(outcome.expect_trailers(), key);
        }
    }
}

/// Text headers of a response reach the caller.
pub async fn header_text_arrives(path: &dyn Path, kind: Kind) {
    assert_headers(path, kind, text()).await;
}

/// Unusual headers of a response reach the caller.
pub async fn unusual_headers_arrive(path: &dyn Path, kind: Kind) {
    assert_headers(path, kind, unusual()).await;
}

/// Binary headers of a response reach the caller.
pub async fn header_bytes_arrive(path: &dyn Path, kind: Kind) {
    assert_headers(path, kind, binary()).await;
}

async fn assert_trailers(path: &dyn Path, kind: Kind, sent: Vec<Entry>) {
    let fixture = Fixture::start(path).await;
    let script = sending(vec![], sent.clone()).send(1, 10, 1);
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    assert_has(outcome.expect_trailers(), &sent);
    if kind.downloads() {
        for Entry { key, .. } in &sent {
            assert_has_not(outcome.headers.as_ref().expect("headers came"), key);
        }
    }
}

/// Text trailers of a success reach the caller.
pub async fn trailer_text_arrives(path: &dyn Path, kind: Kind) {
    assert_trailers(path, kind, text()).await;
}

/// Unusual trailers of a success reach the caller.
pub async fn unusual_trailers_arrive(path: &dyn Path, kind: Kind) {
    assert_trailers(path, kind, unusual()).await;
}

/// Binary trailers of a success reach the caller.
pub async fn trailer_bytes_arrive(path: &dyn Path, kind: Kind) {
    assert_trailers(path, kind, binary()).await;
}

/// Trailers of a failure before or after messages reach the caller, in the status.
pub async fn trailers_of_a_failure_arrive(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let sent = [text(), binary()].concat();
    let before = sending(vec![], sent.clone());
    let after = sending(vec![], sent.clone()).send(1, 10, 1);
    for script in [before, after] {
        let script = script.fail(tonic::Code::NotFound, "nothing here");
        let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
        let status = outcome.expect_failure(tonic::Code::NotFound);
        assert_has(status.metadata(), &sent);
    }
}

/// The same key in headers and trailers keeps its two values apart.
pub async fn headers_and_trailers_stay_apart(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let headers = vec![entry("x-same", "in front"), entry("x-same-bin", [1])];
    let trailers = vec![entry("x-same", "behind"), entry("x-same-bin", [2])];
    let script = sending(headers.clone(), trailers.clone()).send(2, 10, 1);
    let outcome = run(&fixture.client, kind, &script, requests(1, 1, 10)).await;
    assert_has(outcome.headers.as_ref().expect("headers came"), &headers);
    assert_has(outcome.expect_trailers(), &trailers);
}

/// A hundred keys in each direction at once.
pub async fn a_hundred_keys_arrive(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let keys = |prefix: &str| -> Vec<Entry> {
        (0..100)
            .map(|n| entry(&format!("{prefix}-{n}"), format!("value {n}")))
            .collect()
    };
    let (headers, sent) = (keys("x-h"), keys("x-r"));
    // The script itself is sent as metadata. So one call has the headers and another the trailers.
    for (headers, trailers) in [(headers.clone(), vec![]), (vec![], headers)] {
        let script = sending(headers.clone(), trailers.clone()).report();
        let mut request = script.request(futures::stream::iter(requests(1, 1, 1)));
        append(request.metadata_mut(), &sent).expect("legal metadata");
        let outcome = call(&fixture.client, Kind::Bidi, request).await;
        assert_entries(&outcome.expect_success()[0].metadata, &sent);
        assert_has(outcome.headers.as_ref().expect("headers came"), &headers);
        assert_has(outcome.expect_trailers(), &trailers);
    }
}

/// The metadata of a call does not appear in the next call.
pub async fn metadata_is_not_seen_by_the_next_call(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    for kind in Kind::ALL {
        let first = sending(vec![entry("x-mine", "h")], vec![entry("x-mine-too", "t")]).report();
        let mut request = first.request(futures::stream::iter(requests(1, 1, 1)));
        append(request.metadata_mut(), &[entry("x-mine", "r")]).expect("legal metadata");
        let outcome = call(&fixture.client, kind, request).await;
        let seen = &outcome.expect_success()[0].metadata;
        assert_eq!(values(seen, "x-mine"), ["r"]);

        let second = sending(vec![], vec![]).report();
        let request: Request<_> = second.request(futures::stream::iter(requests(1, 1, 1)));
        let outcome = call(&fixture.client, kind, request).await;
        let mut seen = outcome.expect_success()[0].metadata.clone();
        seen.extend(entries(outcome.headers.as_ref().expect("headers came")));
        seen.extend(entries(outcome.expect_trailers()));
        for key in ["x-mine", "x-mine-too"] {
            assert!(values(&seen, key).is_empty(), "{key} leaked: {seen:?}");
        }
    }
}
