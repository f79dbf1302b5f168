//! Compares what should be with what is.

use std::fmt::Display;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tonic::{Code, Status};

use crate::proto::{Entry, Observed};
use crate::{entry, pattern};

/// Compares two values.
pub(super) fn expect<T: PartialEq + Display>(what: &str, want: T, got: T) -> Result<()> {
    ensure!(want == got, "{what}: expected {want}, got {got}");
    Ok(())
}

/// All failures of several checks.
pub(super) fn all(outcomes: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let failures = outcomes.into_iter().filter_map(Result::err);
    let failures: Vec<_> = failures.map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// A status in one line.
pub(super) fn describe(status: &Status) -> String {
    format!("{} {:?}", spell(status.code()), status.message())
}

/// What came of something, in one line.
pub(super) fn outcome<T>(result: &Result<T, Status>) -> String {
    result.as_ref().map_or_else(describe, |_| "OK".to_owned())
}

/// A code as gRPC's documentation spells it.
fn spell(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a call has given that is to succeed.
pub(super) fn expect_ok<T>(what: &str, result: Result<T, Status>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(status) => bail!("{what}: expected OK, got {}", describe(&status)),
    }
}

/// Wants a failure, with any message.
pub(super) fn expect_code<T>(what: &str, want: Code, result: &Result<T, Status>) -> Result<()> {
    let met = matches!(result, Err(status) if status.code() == want);
    ensure!(
        met,
        "{what}: expected {}, got {}",
        spell(want),
        outcome(result)
    );
    Ok(())
}

/// Wants a failure, with this message.
pub(super) fn expect_status<T>(
    what: &str,
    want: Code,
    message: &str,
    result: &Result<T, Status>,
) -> Result<()> {
    let met = matches!(result, Err(got) if got.code() == want && got.message() == message);
    let (want, got) = (spell(want), outcome(result));
    ensure!(met, "{what}: expected {want} {message:?}, got {got}");
    Ok(())
}

/// Wants so many bytes of a pattern.
pub(super) fn expect_pattern(what: &str, number: u32, size: u32, payload: &[u8]) -> Result<()> {
    let got = payload.len();
    ensure!(
        got == size as usize,
        "{what}: expected {size} bytes, got {got}"
    );
    let number = number % 251;
    let met = pattern::is(number, payload);
    ensure!(met, "{what}: expected pattern {number}, got other bytes");
    Ok(())
}

/// Wants the handler to have read so much, undamaged.
pub(super) fn expect_observed(
    what: &str,
    requests: u64,
    bytes: u64,
    got: Option<&Observed>,
) -> Result<()> {
    let got = got.with_context(|| {
        format!("{what}: expected to be told what the handler observed, got nothing")
    })?;
    let read = "that the handler read";
    expect(&format!("{what}: requests {read}"), requests, got.requests)?;
    expect(&format!("{what}: bytes {read}"), bytes, got.request_bytes)?;
    expect(
        &format!("{what}: requests damaged on the way"),
        0,
        got.damaged,
    )
}

/// Wants all values of each key, and allows other keys beside them.
pub(super) fn expect_metadata(what: &str, want: &[Entry], got: &[Entry]) -> Result<()> {
    let all = entry::by_key(got);
    for (key, values) in entry::by_key(want) {
        let got = all.get(key).map_or(&[][..], Vec::as_slice);
        let (met, want, got) = (values == got, quote(&values), quote(got));
        ensure!(met, "{what}: expected {key} to be {want}, got {got}");
    }
    Ok(())
}

/// Values, and of long ones the part where they are likely to differ.
fn quote(values: &[&Bytes]) -> String {
    let quoted = values.iter().map(|value| match value.len() {
        size @ 101.. => format!("{size} bytes that end in {:?}", value.slice(size - 4..)),
        _ => format!("{value:?}"),
    });
    format!("[{}]", quoted.collect::<Vec<_>>().join(", "))
}
