//! The four kinds of call, and messages of all sorts in them.

use anyhow::{Result, ensure};
use prost::Message as _;

use super::caller::{Caller, Kind, Outcome, request, requests};
use super::expect::{expect, expect_observed, expect_ok, outcome};
use crate::proto::{self as pb, Script};

pub(super) async fn unary(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 1,
        response_bytes: 2000,
        ..Default::default()
    };
    c.exchange(Kind::Unary, script, 1, 1000).await
}

pub(super) async fn server_stream(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 2,
        responses: 10,
        response_bytes: 1000,
        ..Default::default()
    };
    c.exchange(Kind::Server, script, 1, 1000).await
}

pub(super) async fn client_stream(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 3,
        response_bytes: 1000,
        ..Default::default()
    };
    c.exchange(Kind::Client, script, 10, 1000).await
}

/// Answers to the requests, and more after their end.
pub(super) async fn bidi_half_close(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 4,
        responses: 5,
        response_bytes: 500,
        ..Default::default()
    };
    c.exchange(Kind::Bidi, script, 3, 1000).await
}

/// Each request after the answer to the one before. The sizes lie around those
/// of a chunk and of a window.
pub(super) async fn bidi_ping_pong(c: &Caller) -> Result<()> {
    let sizes = [
        1, 100, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 200_000,
    ];
    let ping = |number: u32, size| pb::Request {
        script: None,
        ..request(&Script::default(), number, size)
    };
    let mut stream = c.bidi(ping(0, sizes[0])).await?;
    for (number, &size) in (0..100).zip(sizes.iter().cycle()) {
        let what = format!("round {number}");
        c.does(&what);
        if number > 0 {
            stream.send(ping(number, size)).await;
        }
        stream.receive(&what, number, size).await?;
    }
    stream.sender.close_channel();
    c.does("after the last round");
    let end = stream.responses.message().await;
    let (met, got) = (matches!(end, Ok(None)), outcome(&end));
    ensure!(met, "after the last round: expected the end, got {got}");
    Ok(())
}

/// Messages that take no bytes at all.
pub(super) async fn unary_empty_message(c: &Caller) -> Result<()> {
    c.does("a call without bytes");
    let response = c.interop().unary(pb::Request::default()).await;
    let response = expect_ok("a call without bytes", response)?.into_inner();
    expect("size of the response", 0, response.encoded_len())
}

/// Messages that take no bytes are counted all the same, in both directions.
pub(super) async fn stream_empty_messages(c: &Caller) -> Result<()> {
    let script = Script {
        responses: 10,
        ..Default::default()
    };
    c.exchange(Kind::Client, Script::default(), 10, 0).await?;
    c.exchange(Kind::Server, script.clone(), 1, 0).await?;
    c.exchange(Kind::Bidi, script, 10, 0).await
}

/// Streams without messages end well.
pub(super) async fn empty_stream(c: &Caller) -> Result<()> {
    let got = c
        .call(Kind::Server, requests(&Script::default(), 1, 10))
        .await;
    expect_nothing("no responses", &got)?;

    let got = c.call(Kind::Client, Vec::new()).await;
    expect_ok("no requests", got.end)?;
    expect("no requests: responses", 1, got.responses.len())?;
    let told = got.responses[0].observed.as_ref();
    expect_observed("no requests", 0, 0, told)?;

    let got = c.call(Kind::Bidi, Vec::new()).await;
    expect_nothing("no messages", &got)
}

fn expect_nothing(what: &str, got: &Outcome) -> Result<()> {
    let (count, end) = (got.responses.len(), outcome(&got.end));
    let met = got.end.is_ok() && count == 0;
    ensure!(met, "{what}: expected OK and 0, got {end} and {count}");
    Ok(())
}
