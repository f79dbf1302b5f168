//! Two ends that talk over a transport: calls of several kinds, every answer checked.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tunnel_core::{Code, Config, Metadata, Side, Status};

use crate::echo::{self, METHOD, answer_to};
use crate::{Call, CallError, Tunnel};

/// How long calls in flight may take when the tunnel is drained.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How many calls are in flight at once.
const CALLS: usize = 100;

/// The size of a message larger than any window, in bytes.
const LARGE: usize = 1 << 20;

/// How many messages are exchanged in one call.
const MESSAGES: usize = 5;

/// Makes calls from the client to the server, through a forward tunnel over their connection.
///
/// # Errors
///
/// A call that failed, or an answer that was not the expected one.
pub async fn run<C, S>(client: C, server: S) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let handler = Tunnel::over(Side::Handler, server, Config::default());
    let serving = tokio::spawn(echo::serve(handler));
    let caller = Tunnel::over(Side::Caller, client, Config::default());
    make_calls(&caller).await?;
    let reason = caller.drain(DRAIN_TIMEOUT).await;
    println!("Closing the tunnel: {reason}");
    println!("The far end: {}", serving.await?);
    println!("✓ All calls completed, without tonic");
    Ok(())
}

async fn make_calls(tunnel: &Tunnel) -> Result<()> {
    one_message(tunnel).await.context("a unary call")?;
    stream(tunnel).await.context("a streaming call")?;
    large_message(tunnel).await.context("a large message")?;
    calls_at_once(tunnel).await.context("calls at once")?;
    unknown_method(tunnel).await.context("an unknown method")
}

async fn one_message(tunnel: &Tunnel) -> Result<()> {
    // Opens when negotiation is complete.
    let call = tunnel.open(METHOD, Metadata::new()).await?;
    println!("✓ Tunnel established");
    let answer = exchange(call, Bytes::from("Hello")).await?;
    ensure!(answer == "Echo: Hello", "the wrong answer: {answer:?}");
    println!("Unary call: sent \"Hello\", received {answer:?}");
    Ok(())
}

/// Sends each message after the previous one was answered.
async fn stream(tunnel: &Tunnel) -> Result<()> {
    let Call { mut tx, mut rx } = tunnel.open(METHOD, Metadata::new()).await?;
    for n in 1..=MESSAGES {
        let message = format!("message {n}");
        tx.send(message.clone().into()).await?;
        let answer = rx.receive().await?;
        ensure!(
            answer == Some(answer_to(message.as_bytes())),
            "the wrong answer to {message:?}: {answer:?}"
        );
    }
    tx.finish()?;
    ensure!(rx.receive().await?.is_none(), "more answers than questions");
    println!("Streaming call: {MESSAGES} messages, each answered before the next was sent");
    Ok(())
}

/// A message larger than a stream's window, which needs credit while it is sent.
async fn large_message(tunnel: &Tunnel) -> Result<()> {
    let message: Bytes = (0..LARGE).map(|n| (n % 251) as u8).collect();
    let answer = unary(tunnel, METHOD, message.clone()).await?;
    ensure!(answer == answer_to(&message), "not what was sent");
    println!("Large message: {LARGE} bytes, there and back");
    Ok(())
}

async fn calls_at_once(tunnel: &Tunnel) -> Result<()> {
    let mut opened = Vec::new();
    for n in 0..CALLS {
        opened.push((n, tunnel.open(METHOD, Metadata::new()).await?));
    }
    let mut calls = JoinSet::new();
    for (n, call) in opened {
        calls.spawn(async move {
            let message = format!("call {n}");
            let answer = exchange(call, message.clone().into()).await?;
            ensure!(
                answer == answer_to(message.as_bytes()),
                "{message}: {answer:?}"
            );
            Ok(())
        });
    }
    while let Some(finished) = calls.join_next().await {
        finished??;
    }
    println!("Calls at once: {CALLS}, every answer for the call that asked");
    Ok(())
}

async fn unknown_method(tunnel: &Tunnel) -> Result<()> {
    match unary(tunnel, "/example.Echo/Shout", Bytes::new()).await {
        Err(CallError::Status(Status {
            code: Code::Unimplemented,
            message,
            ..
        })) => {
            println!("Expected error: Unimplemented: {message}");
            Ok(())
        }
        other => bail!("should not be there: {other:?}"),
    }
}

/// A unary call.
async fn unary(tunnel: &Tunnel, method: &str, message: Bytes) -> Result<Bytes, CallError> {
    exchange(tunnel.open(method, Metadata::new()).await?, message).await
}

async fn exchange(call: Call, message: Bytes) -> Result<Bytes, CallError> {
    let Call { mut tx, mut rx } = call;
    // A handler may refuse a call before it has read the message. Then sending
    // fails, and the status of the call says why.
    if tx.send(message).await.is_ok() {
        let _ = tx.finish();
    }
    let missing = || CallError::Status(Status::new(Code::Internal, "no answer"));
    let answer = rx.receive().await?.ok_or_else(missing)?;
    // The answer counts only with an OK status.
    match rx.receive().await? {
        None => Ok(answer),
        Some(_) => {
            let status = Status::new(Code::Internal, "more than one answer");
            Err(CallError::Status(status))
        }
    }
}
