//! Many calls, and calls that wait beside others.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::future::{join, join_all};

use super::caller::{Caller, Kind};
use super::expect::all;
use super::sizes::{open_scripted, read_scripted, upload};
use crate::proto::Script;

/// How long calls have beside one that nobody reads; less than a case.
const BESIDE: Duration = Duration::from_secs(5);

/// Many calls of all kinds at once, each of which takes a moment.
pub(super) async fn concurrent_calls(c: &Caller) -> Result<()> {
    const CALLS: u32 = 200;
    let calls = (0..CALLS).map(|number| async move {
        let kind = Kind::ALL[number as usize % 4];
        let script = Script {
            seed: number,
            delay_ms: 50,
            responses: 5,
            response_bytes: 100 + number,
            ..Default::default()
        };
        let count = if kind.uploads() { 5 } else { 1 };
        let call = c.exchange(kind, script, count, 200 + number);
        call.await.with_context(|| format!("call {number}"))
    });
    let ended = join_all(calls).await;
    let mut failures: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
    let failed = failures.len();
    match failures.drain(..).next() {
        None => Ok(()),
        Some(first) => Err(anyhow!(
            "expected {CALLS} calls to succeed, but {failed} failed, among them {first:#}"
        )),
    }
}

/// Streams far larger than a window wait, each way, while other calls go on.
pub(super) async fn slow_reader(c: &Caller) -> Result<()> {
    let script = Script {
        seed: 8,
        responses: 64,
        response_bytes: 65_536,
        ..Default::default()
    };
    let mut responses = open_scripted(c, &script).await?;
    beside(c, "a response stream that nobody reads").await?;
    let read = read_scripted(c, &mut responses, &script);
    read.await.context("the response stream")?;

    let script = Script {
        seed: 9,
        read_delay_ms: 500,
        ..Default::default()
    };
    let uploading = upload(c, script, 64, 65_536);
    let calling = beside(c, "a request stream that nobody reads");
    let (uploaded, called) = join(uploading, calling).await;
    all([called, uploaded])
}

/// Makes some calls, which have less time than the case.
async fn beside(c: &Caller, what: &str) -> Result<()> {
    let calls = async {
        for number in 0..20 {
            let script = Script {
                response_bytes: 1000,
                ..Default::default()
            };
            let call = c.exchange(Kind::Unary, script, 1, 1000);
            call.await
                .with_context(|| format!("call {number} beside {what}"))?;
        }
        Ok(())
    };
    let called = tokio::time::timeout(BESIDE, calls).await;
    called.unwrap_or_else(|_| Err(anyhow!("calls beside {what}: not done within {BESIDE:?}")))
}

/// One call after the other.
pub(super) async fn many_calls_in_a_row(c: &Caller) -> Result<()> {
    for number in 0..1000 {
        let script = Script {
            seed: number,
            response_bytes: number % 100,
            ..Default::default()
        };
        let call = c.exchange(Kind::Unary, script, 1, 100 - number % 100);
        call.await.with_context(|| format!("call {number}"))?;
    }
    Ok(())
}
