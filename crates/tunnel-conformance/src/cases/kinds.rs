//! The four kinds of call, and the ways in which each can end.

use bytes::Bytes;
use tonic::Code;

use super::failure_codes;
use crate::client::run;
use crate::metadata::{assert_has, entry};
use crate::payload::{assert_pattern, assert_sent, details, received, request, requests};
use crate::proto::Script;
use crate::{Fixture, Kind, Path};

/// All requests and responses arrive complete and in order.
pub async fn succeeds(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let sent = requests(1, kind.requests(5), 100);

    let script = Script::named("up").receive_all().summarize();
    let outcome = run(&fixture.client, kind, &script, sent.clone()).await;
    let [response] = outcome.expect_success() else {
        panic!("one response should come, not {:?}", outcome.messages);
    };
    assert_eq!(response.received, Some(received(&sent)));

    let count = kind.responses(5);
    let script = Script::named("down").receive_all().send(count, 200, 40);
    let outcome = run(&fixture.client, kind, &script, sent.clone()).await;
    assert_sent(outcome.expect_success(), count, 200, 40);

    for call in ["up", "down"] {
        let record = fixture
            .probe
            .until(call, |record| record.finished == 1)
            .await;
        assert_eq!(record.started, 1, "handlers of {call}");
        assert_eq!(record.received, sent.len() as u64, "requests of {call}");
        assert_eq!(record.inputs_ended, 1, "clean ends of {call}");
        assert_eq!(record.dropped, 0, "dropped handlers of {call}");
        assert!(record.inputs_failed.is_empty(), "{record:?}");
    }
}

/// A call without metadata of the suite.
pub async fn succeeds_without_metadata(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let sent = futures::stream::iter([request(3, 77)]);
    let outcome = crate::client::call(&fixture.client, kind, tonic::Request::new(sent)).await;
    let [response] = outcome.expect_success() else {
        panic!("one response should come, not {:?}", outcome.messages);
    };
    assert_pattern(&response.payload, 3, 77);
}

/// A failure before any response: its code, message, details and trailers arrive.
pub async fn fails_before_messages(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("failing")
        .trailer("x-reason", "because")
        .receive_all()
        .fail_with(
            Code::FailedPrecondition,
            "not today",
            details(Code::FailedPrecondition, "not today"),
        );
    let sent = requests(1, kind.requests(3), 100);
    let outcome = run(&fixture.client, kind, &script, sent).await;

    let status = outcome.expect_failure(Code::FailedPrecondition);
    assert_eq!(status.message(), "not today");
    assert_eq!(
        status.details(),
        details(Code::FailedPrecondition, "not today")
    );
    assert_has(status.metadata(), &[entry("x-reason", "because")]);
    assert!(outcome.headers.is_none(), "no headers came");
    assert_eq!(outcome.messages, []);
}

/// The same, from a handler that reads no request.
pub async fn fails_without_reading(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("failing").fail(Code::ResourceExhausted, "too much");
    let sent = requests(1, kind.requests(3), 100);
    let outcome = run(&fixture.client, kind, &script, sent).await;

    let status = outcome.expect_failure(Code::ResourceExhausted);
    assert_eq!(status.message(), "too much");
    assert_eq!(status.details(), b"");
    assert_eq!(outcome.messages, []);
}

/// A failure after the headers and before any message.
pub async fn fails_after_headers(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let script = Script::named("failing")
        .header("x-header", "came")
        .receive_all()
        .send_headers()
        .fail_with(
            Code::Aborted,
            "changed my mind",
            details(Code::Aborted, "changed my mind"),
        );
    let sent = requests(1, kind.requests(3), 100);
    let outcome = run(&fixture.client, kind, &script, sent).await;

    let status = outcome.expect_failure(Code::Aborted);
    assert_eq!(status.message(), "changed my mind");
    assert_eq!(status.details(), details(Code::Aborted, "changed my mind"));
    let headers = outcome.headers.as_ref().expect("headers came");
    assert_has(headers, &[entry("x-header", "came")]);
    assert_eq!(outcome.messages, []);
}

/// A failure after messages. All messages arrive before it, except in kinds with one response,
/// where the failure replaces the response.
pub async fn fails_after_messages(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let count = kind.responses(4);
    let script = Script::named("failing")
        .trailer("x-reason", "because")
        .receive_all()
        .send(count, 300, 20)
        .fail_with(
            Code::DataLoss,
            "and that was it",
            details(Code::DataLoss, "and that was it"),
        );
    let sent = requests(1, kind.requests(3), 100);
    let outcome = run(&fixture.client, kind, &script, sent).await;

    let status = outcome.expect_failure(Code::DataLoss);
    assert_eq!(status.message(), "and that was it");
    assert_eq!(status.details(), details(Code::DataLoss, "and that was it"));
    assert_has(status.metadata(), &[entry("x-reason", "because")]);
    if kind.downloads() {
        assert_sent(&outcome.messages, count, 300, 20);
    } else {
        assert_eq!(outcome.messages, []);
    }
}

/// Failures with all sixteen codes, before and after a message.
pub async fn fails_with_every_code(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    for code in failure_codes() {
        let message = format!("this is {code:?}");
        let before = Script::named("before").receive_all().fail(code, &message);
        let after = Script::named("after").receive_all().send(1, 10, 1);
        for script in [before, after.fail(code, &message)] {
            let sent = requests(1, kind.requests(2), 10);
            let outcome = run(&fixture.client, kind, &script, sent).await;
            assert_eq!(outcome.expect_failure(code).message(), message);
        }
    }
}

/// Status messages with any characters arrive unchanged.
pub async fn status_messages_arrive_as_written(path: &dyn Path) {
    let fixture = Fixture::start(path).await;
    let long = "all work and no play ".repeat(50);
    let messages = [
        "",
        " spaces  around ",
        "100 % sure, %41 is no A",
        "two\nlines\r\nand a\ttab",
        "\"quoted\" \\ {braced} <angled> #?`",
        "žluťoučký kůň ☃ 漢字 🦀",
        "null \0 and delete \u{7f}",
        &long,
    ];
    for message in messages {
        for kind in Kind::ALL {
            let script = Script::named("failing").receive_all();
            let script = script.fail(Code::InvalidArgument, message);
            let outcome = run(&fixture.client, kind, &script, requests(1, 1, 1)).await;
            let status = outcome.expect_failure(Code::InvalidArgument);
            assert_eq!(status.message(), message, "of a {kind:?} call");
        }
    }
}

/// Status details with every byte value, and long ones, arrive unchanged.
pub async fn details_arrive_as_they_were(path: &dyn Path, kind: Kind) {
    let fixture = Fixture::start(path).await;
    let every: Bytes = crate::metadata::every_byte().into();
    let long: Bytes = every.repeat(8).into();
    let short = Bytes::from_static(&[0]);
    for details in [Bytes::new(), short, every, long] {
        let before = Script::named("before").receive_all();
        let after = Script::named("after").receive_all().send(1, 10, 1);
        for script in [before, after] {
            let script = script.fail_with(Code::Internal, "details", details.clone());
            let outcome = run(&fixture.client, kind, &script, requests(1, 1, 1)).await;
            let status = outcome.expect_failure(Code::Internal);
            assert_eq!(status.details(), &details[..]);
        }
    }
}
