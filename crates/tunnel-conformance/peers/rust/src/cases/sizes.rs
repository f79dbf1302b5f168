//! Large messages, and large streams.

use anyhow::{Result, ensure};
use futures::stream;
use tonic::Streaming;

use super::caller::{Caller, Kind, receive, request};
use super::expect::{expect_observed, expect_ok, expect_pattern, outcome};
use crate::proto::{self as pb, Script};

const MEBIBYTE: u32 = 1 << 20;

/// So many messages of a mebibyte are a large stream.
const LARGE_COUNT: u32 = 16;

pub(super) async fn unary_large(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 5,
        response_bytes: 3 * MEBIBYTE,
        ..Default::default()
    };
    c.exchange(Kind::Unary, script, 1, 3 * MEBIBYTE).await
}

pub(super) async fn server_stream_large(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 6,
        responses: LARGE_COUNT,
        response_bytes: MEBIBYTE,
        ..Default::default()
    };
    let mut responses = open_scripted(c, &script).await?;
    read_scripted(c, &mut responses, &script).await
}

/// Asks for the responses of a script.
pub(super) async fn open_scripted(c: &Caller, script: &Script) -> Result<Streaming<pb::Response>> {
    c.does("opening the stream");
    let request = pb::Request {
        script: Some(script.clone()),
        ..Default::default()
    };
    let opened = c.interop().server_stream(request).await;
    Ok(expect_ok("opening the stream", opened)?.into_inner())
}

/// Reads the responses of a script, and the end.
pub(super) async fn read_scripted(
    c: &Caller,
    responses: &mut Streaming<pb::Response>,
    script: &Script,
) -> Result<()> {
    for number in 0..script.responses {
        let what = format!("response {number} of {}", script.responses);
        c.does(&what);
        let payload = receive(&what, responses).await?.payload;
        expect_pattern(&what, script.seed + number, script.response_bytes, &payload)?;
    }
    c.does("after the last response");
    let end = responses.message().await;
    let (met, got) = (matches!(end, Ok(None)), outcome(&end));
    ensure!(met, "after the last response: expected the end, got {got}");
    Ok(())
}

pub(super) async fn client_stream_large(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 7,
        ..Default::default()
    };
    upload(c, script, LARGE_COUNT, MEBIBYTE).await
}

/// Sends a stream of requests and checks that they arrived.
pub(super) async fn upload(c: &Caller, script: Script, count: u32, size: u32) -> Result<()> {
    c.does("the upload");
    let requests = (0..count).map(move |number| request(&script, number, size));
    let response = c.interop().client_stream(stream::iter(requests)).await;
    let response = expect_ok("the upload", response)?.into_inner();
    let (count, size) = (u64::from(count), u64::from(size));
    expect_observed(
        "the upload",
        count,
        count * size,
        response.observed.as_ref(),
    )
}
