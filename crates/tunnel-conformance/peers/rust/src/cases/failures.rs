//! Calls that fail, and how.

use anyhow::{Context, Result, ensure};
use futures::stream;
use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};

use super::caller::{Caller, Kind, request, requests};
use super::expect::{all, expect, expect_code, expect_metadata, expect_status};
use super::metadata::every_byte;
use crate::entry::entry;
use crate::pattern;
use crate::proto::failure::Moment;
use crate::proto::{self as pb, Failure, Script};

fn failure(code: Code, message: &str) -> Failure {
    Failure {
        code: code as i32,
        message: message.to_owned(),
        ..Default::default()
    }
}

/// Every code with every kind; all that go wrong are told of.
pub(super) async fn failure_code(c: &Caller) -> Result<()> {
    let mut outcomes = Vec::new();
    for kind in Kind::ALL {
        for number in 1..=16 {
            let message = format!("failure number {number}");
            outcomes.push(expect_failure(c, kind, Code::from_i32(number), &message).await);
        }
    }
    all(outcomes)
}

/// Asks for a failure before anything else.
async fn expect_failure(c: &Caller, kind: Kind, code: Code, message: &str) -> Result<()> {
    let script = Script {
        responses: 1,
        failure: Some(failure(code, message)),
        ..Default::default()
    };
    let got = c.call(kind, requests(&script, 1, 10)).await;
    expect_status(kind.name(), code, message, &got.end)?;
    expect_no_responses(kind, &got.responses)
}

fn expect_no_responses(kind: Kind, got: &[pb::Response]) -> Result<()> {
    expect(&format!("{}: responses", kind.name()), 0, got.len())
}

pub(super) async fn unicode_status_message(c: &Caller) -> Result<()> {
    let messages = [
        "naïve café",
        "日本語 🦀",
        "100% of\nthree\tlines\r\n",
        " spaces around ",
        "",
        "%41",
    ];
    for message in messages {
        expect_failure(c, Kind::Unary, Code::Aborted, message).await?;
    }
    Ok(())
}

pub(super) async fn failure_details(c: &Caller) -> Result<()> {
    let details = vec![
        Any {
            type_url: "type.googleapis.com/tunnel.interop.v1.Entry".to_owned(),
            value: entry("detail", every_byte()).encode_to_vec(),
        },
        Any {
            type_url: "type.example/unknown.to.All".to_owned(),
            value: vec![1, 2, 3],
        },
    ];
    let failure = Failure {
        details: details.clone(),
        ..failure(Code::FailedPrecondition, "with details")
    };
    let script = Script {
        failure: Some(failure),
        ..Default::default()
    };
    for kind in Kind::ALL {
        let got = c.call(kind, requests(&script, 1, 10)).await.end;
        let what = kind.name();
        expect_status(what, Code::FailedPrecondition, "with details", &got)?;
        expect_details(what, &details, got)?;
    }
    Ok(())
}

fn expect_details(what: &str, want: &[Any], got: Result<(), Status>) -> Result<()> {
    let status = got.err().context("a failure is expected")?;
    let came = tunnel_proto::google::rpc::Status::decode(status.details())
        .with_context(|| format!("{what}: status details that cannot be read"))?
        .details;
    expect(&format!("{what}: status details"), want.len(), came.len())?;
    for (i, (want, got)) in want.iter().zip(&came).enumerate() {
        let met = want == got;
        ensure!(
            met,
            "{what}: status detail {i}: expected {want:?}, got {got:?}"
        );
    }
    Ok(())
}

pub(super) async fn failure_after_headers(c: &Caller) -> Result<()> {
    let failure = Failure {
        moment: Moment::AfterHeaders.into(),
        ..failure(Code::DataLoss, "after headers")
    };
    let script = Script {
        headers: vec![entry("x-before", "yes")],
        failure: Some(failure),
        responses: 1,
        ..Default::default()
    };
    for kind in Kind::ALL {
        let what = kind.name();
        let got = c.call(kind, requests(&script, 1, 10)).await;
        expect_status(what, Code::DataLoss, "after headers", &got.end)?;
        expect_metadata(&format!("{what}: headers"), &script.headers, &got.headers)?;
        expect_no_responses(kind, &got.responses)?;
    }
    Ok(())
}

/// What came before the failure, and then the failure.
pub(super) async fn failure_after_messages(c: &Caller) -> Result<()> {
    let failure = Failure {
        moment: Moment::AfterResponses.into(),
        after_responses: 3,
        ..failure(Code::OutOfRange, "after three")
    };
    let script = Script {
        responses: 5,
        response_bytes: 1000,
        failure: Some(failure),
        ..Default::default()
    };
    let got = c.call(Kind::Server, requests(&script, 1, 10)).await;
    expect_status("server stream", Code::OutOfRange, "after three", &got.end)?;
    expect("server stream: responses", 3, got.responses.len())?;
    failure_between_rounds(c, &script).await
}

async fn failure_between_rounds(c: &Caller, script: &Script) -> Result<()> {
    let mut stream = c.bidi(request(script, 0, 1000)).await.context("bidi")?;
    for number in 0..3 {
        let what = format!("bidi: response {number}");
        c.does(&what);
        if number > 0 {
            stream.send(request(script, number, 1000)).await;
        }
        stream.receive(&what, number, 1000).await?;
    }
    c.does("bidi: the end");
    // Not half-closed: the handler ends it alone.
    let end = stream.responses.message().await;
    expect_status("bidi", Code::OutOfRange, "after three", &end)
}

/// Fails while far more than a window is still to be sent.
pub(super) async fn failure_during_upload(c: &Caller) -> Result<()> {
    let script = Script {
        failure: Some(failure(Code::PermissionDenied, "no more")),
        ..Default::default()
    };
    c.does("the upload");
    let requests = (0..64).map(move |number| request(&script, number, 65_536));
    let got = c.interop().client_stream(stream::iter(requests)).await;
    expect_status("the upload", Code::PermissionDenied, "no more", &got)?;
    c.usable().await
}

pub(super) async fn unimplemented_method(c: &Caller) -> Result<()> {
    unimplemented(c, "/tunnel.interop.v1.InteropService/Missing").await
}

pub(super) async fn unimplemented_service(c: &Caller) -> Result<()> {
    unimplemented(c, "/tunnel.interop.v1.MissingService/Unary").await
}

/// Calls what does not exist, once alone and once with a stream of requests.
async fn unimplemented(c: &Caller, method: &'static str) -> Result<()> {
    c.does("unary: calling");
    let request = pb::Request {
        payload: pattern::of(0, 10),
        script: None,
    };
    let got = c.call_method(method, vec![request]).await;
    expect_code("unary", Code::Unimplemented, &got.end)?;
    c.does("bidi: calling");
    let requests = requests(&Script::default(), 10, 1000);
    let got = c.call_method(method, requests).await;
    expect_code("bidi", Code::Unimplemented, &got.end)?;
    ensure!(got.responses.is_empty(), "bidi: expected no response");
    c.usable().await
}
