//! Callers that let go of a call, or have no more time for it.
//!
//! With tonic a call is given up by dropping it, so its caller sees no status;
//! what is checked is that the handler hears of it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tonic::{Code, Request};

use super::caller::{Caller, Kind, receive, request, requests};
use super::expect::{expect, expect_code, expect_ok, expect_pattern, outcome};
use super::sizes::open_scripted;
use crate::proto::watch_request::Until;
use crate::proto::watch_response::State;
use crate::proto::{self as pb, Script, WatchRequest};

/// For how long handlers would go on if nobody told them to stop, in milliseconds.
const FOREVER: u32 = 120_000;

/// How long they have to begin, or to stop, in milliseconds.
const SOON: u32 = 5_000;

/// Asks the handler of a call where it stands.
async fn watch(c: &Caller, call: &str, until: Until) -> Result<State> {
    c.does("watching the call");
    let request = WatchRequest {
        call: call.to_owned(),
        until: until.into(),
        wait_ms: SOON,
    };
    let answer = c.interop().watch(request).await;
    Ok(expect_ok("watching the call", answer)?.get_ref().state())
}

/// Checks that a handler was told to stop, and that the tunnel still works.
async fn stopped(c: &Caller, call: &str) -> Result<()> {
    let state = watch(c, call, Until::Ended).await?;
    expect_state("the handler", State::Cancelled, state)?;
    c.usable().await
}

fn expect_state(what: &str, want: State, got: State) -> Result<()> {
    expect(what, want.as_str_name(), got.as_str_name())
}

/// While the handler is at work.
pub(super) async fn cancel_unary(c: &Caller) -> Result<()> {
    let script = Script {
        call: c.name_call(),
        delay_ms: FOREVER,
        ..Default::default()
    };
    tokio::select! {
        got = c.call(Kind::Unary, requests(&script, 1, 10)) => {
            bail!("the call: expected it to last, got {}", outcome(&got.end));
        }
        state = watch(c, &script.call, Until::Begun) => {
            expect_state("the handler before", State::Running, state?)?;
        }
    }
    stopped(c, &script.call).await
}

/// After some of the responses.
pub(super) async fn cancel_server_stream(c: &Caller) -> Result<()> {
    let script = Script {
        call: c.name_call(),
        responses: 3,
        response_bytes: 1000,
        linger_ms: FOREVER,
        ..Default::default()
    };
    let mut responses = open_scripted(c, &script).await?;
    for number in 0..script.responses {
        let what = format!("response {number}");
        c.does(&what);
        let response = receive(&what, &mut responses).await?;
        expect_pattern(&what, number, 1000, &response.payload)?;
    }
    drop(responses);
    stopped(c, &script.call).await
}

/// While the handler waits for another request.
pub(super) async fn cancel_bidi(c: &Caller) -> Result<()> {
    let script = Script {
        call: c.name_call(),
        ..Default::default()
    };
    let mut stream = c.bidi(request(&script, 0, 1000)).await?;
    for number in 0..3 {
        let what = format!("round {number}");
        c.does(&what);
        if number > 0 {
            stream.send(request(&script, number, 1000)).await;
        }
        stream.receive(&what, number, 1000).await?;
    }
    // The end of the requests alone would be a half-close, and no cancel.
    let still_open = stream.sender;
    drop(stream.responses);
    let outcome = stopped(c, &script.call).await;
    drop(still_open);
    outcome
}

/// Both ends of a call stop when its time is up.
pub(super) async fn deadline(c: &Caller) -> Result<()> {
    let script = Script {
        call: c.name_call(),
        delay_ms: FOREVER,
        ..Default::default()
    };
    let mut limited = Request::new(requests(&script, 1, 10));
    limited.set_timeout(Duration::from_millis(500));
    let got = c.call(Kind::Unary, limited).await;
    expect_code("the call", Code::DeadlineExceeded, &got.end)?;
    stopped(c, &script.call).await
}

/// The handler knows of the deadline.
pub(super) async fn deadline_travels(c: &Caller) -> Result<()> {
    c.does("the call");
    let script = Script {
        observe: true,
        ..Default::default()
    };
    let mut limited = Request::new(pb::Request {
        script: Some(script),
        ..Default::default()
    });
    limited.set_timeout(Duration::from_secs(20));
    let response = expect_ok("the call", c.interop().unary(limited).await)?;
    let seen = response.into_inner().observed.unwrap_or_default();
    ensure!(seen.deadline, "the handler: expected a deadline, got none");
    let (met, left) = ((1..=20_000).contains(&seen.deadline_ms), seen.deadline_ms);
    ensure!(
        met,
        "the handler: expected a deadline at most 20000 ms away, got {left} ms"
    );
    Ok(())
}
