//! Headers and trailers.

use anyhow::Result;
use tonic::{Code, Request};

use super::caller::{Caller, Kind, requests};
use super::expect::{all, expect_metadata, expect_ok, expect_status};
use crate::entry::{self, entry};
use crate::proto::failure::Moment;
use crate::proto::{self as pb, Entry, Failure, Script};

/// Both from every kind, whether it succeeds or fails.
pub(super) async fn headers_and_trailers(c: &Caller) -> Result<()> {
    let script = Script {
        headers: marks("x-header", "x-other-header"),
        trailers: marks("x-trailer", "x-other-trailer"),
        responses: 2,
        response_bytes: 10,
        ..Default::default()
    };
    for kind in Kind::ALL {
        for fails in [false, true] {
            headers_and_trailers_of(c, kind, fails, script.clone()).await?;
        }
    }
    Ok(())
}

async fn headers_and_trailers_of(
    c: &Caller,
    kind: Kind,
    fails: bool,
    mut script: Script,
) -> Result<()> {
    let mut what = kind.name().to_owned();
    if fails {
        what += " that fails";
        script.failure = Some(Failure {
            code: Code::FailedPrecondition as i32,
            message: "asked for".to_owned(),
            moment: Moment::AfterHeaders.into(),
            ..Default::default()
        });
    }
    let got = c.call(kind, requests(&script, 1, 10)).await;
    match fails {
        true => expect_status(&what, Code::FailedPrecondition, "asked for", &got.end)?,
        false => expect_ok(&what, got.end)?,
    }
    expect_metadata(&format!("{what}: headers"), &script.headers, &got.headers)?;
    expect_metadata(
        &format!("{what}: trailers"),
        &script.trailers,
        &got.trailers,
    )
}

fn marks(key: &str, other: &str) -> Vec<Entry> {
    vec![
        entry(key, "first"),
        entry(key, "second"),
        entry(other, "yes"),
    ]
}

/// Text of all kinds, both ways.
pub(super) async fn metadata_text(c: &Caller) -> Result<()> {
    let printable: Vec<u8> = (b'!'..=b'~').collect();
    let entries = [
        entry("x-text", "some text"),
        entry("x-printable", printable),
        entry("x-several", "one"),
        entry("x-several", "two"),
        entry("x-several", "three"),
        entry("x-commas", "a, b,c"),
        entry("x-nothing", ""),
        entry("x-punctuation.in_key-1", "yes"),
    ];
    all([there(c, &entries).await, back(c, &entries).await])
}

/// Any bytes in a request. The two ways are separate cases: where a value cannot
/// be sent, a peer may take the whole tunnel down.
pub(super) async fn metadata_bin(c: &Caller) -> Result<()> {
    there(c, &binary()).await
}

/// Any bytes in a response.
pub(super) async fn metadata_bin_response(c: &Caller) -> Result<()> {
    back(c, &binary()).await
}

fn binary() -> [Entry; 3] {
    [
        entry("x-all-bin", every_byte()),
        entry("x-several-bin", b"\xff"),
        entry("x-several-bin", b"\x00\xfe"),
    ]
}

/// Every value of a byte.
pub(super) fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// What every peer can do.
pub(super) async fn metadata_bin_ascii(c: &Caller) -> Result<()> {
    let ascii: Vec<u8> = (0..128).collect();
    let entries = [entry("x-ascii-bin", ascii)];
    all([there(c, &entries).await, back(c, &entries).await])
}

/// Sends entries with a request.
async fn there(c: &Caller, entries: &[Entry]) -> Result<()> {
    c.does("a call with metadata");
    let script = Script {
        observe: true,
        ..Default::default()
    };
    let mut request = Request::new(pb::Request {
        script: Some(script),
        ..Default::default()
    });
    *request.metadata_mut() = entry::to_metadata(entries)?;
    let response = c.interop().unary(request).await;
    let response = expect_ok("a call with metadata", response)?.into_inner();
    let seen = response.observed.unwrap_or_default().metadata;
    expect_metadata("metadata that the handler read", entries, &seen)
}

/// Wants entries in the headers and in the trailers of a response.
async fn back(c: &Caller, entries: &[Entry]) -> Result<()> {
    let script = Script {
        headers: entries.to_vec(),
        trailers: entries.to_vec(),
        response_bytes: 10,
        ..Default::default()
    };
    let got = c.call(Kind::Unary, requests(&script, 1, 10)).await;
    expect_ok("a call with metadata in its response", got.end)?;
    all([
        expect_metadata("headers", entries, &got.headers),
        expect_metadata("trailers", entries, &got.trailers),
    ])
}
