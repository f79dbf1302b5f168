//! Calls that are cancelled or run out of time, and many in a row.

use std::future::pending;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tonic::{Code, Request};
use tunnel_client::TunnelChannel;

use super::kinds::{empty_unary, expect_payload, large_call, output_request};
use super::statuses::expect;
use super::{Succeeds, client, none_in_flight};
use crate::proto::official::{StreamingInputCallRequest, StreamingOutputCallRequest};

const WORKERS: usize = 4;
const ITERATIONS: usize = 25; // of each worker

/// A client of tonic cancels by dropping. So there is no status to look at: the
/// call must be gone, and the tunnel must go on.
pub(super) async fn cancel_after_begin(tunnel: TunnelChannel) -> Result<()> {
    let (begun, begins) = oneshot::channel();
    // The requests are asked for when the call has begun.
    let requests = stream::once(async move {
        // Fails when the call is cancelled, which it is afterwards.
        let _ = begun.send(());
        pending::<StreamingInputCallRequest>().await
    });
    let mut client = client(tunnel.clone());
    tokio::select! {
        early = client.streaming_input_call(requests) => {
            early.succeeds("a call that sends nothing yet")?;
            bail!("expected a call without an end");
        }
        begun = begins => begun.context("the call has not begun")?,
    }
    none_in_flight(&tunnel).await;
    empty_unary(tunnel).await
}

pub(super) async fn cancel_after_first_response(tunnel: TunnelChannel) -> Result<()> {
    let requests = stream::iter([output_request(27_182, &[31_415])]).chain(stream::pending());
    let response = client(tunnel.clone())
        .full_duplex_call(requests)
        .await
        .succeeds("a call with streams")?;
    let mut responses = response.into_inner();
    let first = responses.message().await.succeeds("the first response")?;
    let first = first.context("expected a response, got the end")?;
    expect_payload(first.payload.as_ref(), 31_415)?;
    ensure!(tunnel.stats().streams == 1, "expected the call to go on");
    drop(responses);
    none_in_flight(&tunnel).await;
    empty_unary(tunnel).await
}

pub(super) async fn timeout_on_sleeping_server(tunnel: TunnelChannel) -> Result<()> {
    // The server is asked for nothing, and waits for the next request.
    let first: StreamingOutputCallRequest = output_request(27_182, &[]);
    let mut request = Request::new(stream::iter([first]).chain(stream::pending()));
    request.set_timeout(Duration::from_millis(1));
    let outcome = match client(tunnel.clone()).full_duplex_call(request).await {
        Ok(response) => response.into_inner().message().await,
        Err(status) => Err(status),
    };
    expect(outcome, Code::DeadlineExceeded, None)?;
    none_in_flight(&tunnel).await;
    Ok(())
}

pub(super) async fn soak(tunnel: TunnelChannel) -> Result<()> {
    let workers = (0..WORKERS).map(|_| soak_one(tunnel.clone()));
    try_join_all(workers).await.map(|_| ())
}

async fn soak_one(tunnel: TunnelChannel) -> Result<()> {
    let mut client = client(tunnel);
    for iteration in 0..ITERATIONS {
        let called = large_call(&mut client).await;
        called.with_context(|| format!("iteration {iteration}"))?;
    }
    Ok(())
}
