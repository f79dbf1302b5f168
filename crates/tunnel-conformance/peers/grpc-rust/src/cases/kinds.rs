//! Calls of each kind that succeed.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tunnel_client::TunnelChannel;

use super::{Client, Succeeds, client};
use crate::proto::official::{
    Empty, Payload, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingOutputCallRequest, StreamingOutputCallResponse,
};

const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [i32; 4] = [31_415, 9, 2_653, 58_979];
const LARGE_REQUEST: usize = 271_828;
const LARGE_RESPONSE: i32 = 314_159;

/// A payload of so many zeros.
pub(super) fn zeros(size: usize) -> Option<Payload> {
    Some(Payload {
        body: Bytes::from(vec![0; size]),
        ..Payload::default()
    })
}

/// A request of a given size for responses of given sizes.
pub(super) fn output_request(size: usize, wanted: &[i32]) -> StreamingOutputCallRequest {
    let parameters = wanted.iter().map(|&size| ResponseParameters {
        size,
        interval_us: 0,
    });
    StreamingOutputCallRequest {
        response_parameters: parameters.collect(),
        payload: zeros(size),
        ..StreamingOutputCallRequest::default()
    }
}

/// Fails unless a payload is what was asked for.
pub(super) fn expect_payload(payload: Option<&Payload>, size: i32) -> Result<()> {
    let payload = payload.context("expected a payload, got none")?;
    let got = payload.body.len();
    ensure!(
        payload.r#type == 0,
        "expected a payload of type 0, got {}",
        payload.r#type
    );
    ensure!(
        usize::try_from(size) == Ok(got),
        "expected a payload of {size} bytes, got {got}"
    );
    let zeros = payload.body.iter().all(|&byte| byte == 0);
    ensure!(zeros, "expected a payload of zeros");
    Ok(())
}

pub(super) async fn empty_unary(tunnel: TunnelChannel) -> Result<()> {
    client(tunnel)
        .empty_call(Empty {})
        .await
        .succeeds("an empty call")?;
    Ok(())
}

pub(super) async fn large_unary(tunnel: TunnelChannel) -> Result<()> {
    large_call(&mut client(tunnel)).await
}

pub(super) async fn large_call(client: &mut Client) -> Result<()> {
    let request = SimpleRequest {
        response_size: LARGE_RESPONSE,
        payload: zeros(LARGE_REQUEST),
        ..SimpleRequest::default()
    };
    let response = client.unary_call(request).await.succeeds("a large call")?;
    expect_payload(response.into_inner().payload.as_ref(), LARGE_RESPONSE)
}

pub(super) async fn client_streaming(tunnel: TunnelChannel) -> Result<()> {
    let requests = REQUESTS.map(|size| StreamingInputCallRequest {
        payload: zeros(size),
    });
    let response = client(tunnel)
        .streaming_input_call(stream::iter(requests))
        .await
        .succeeds("a call with a stream of requests")?;
    let got = response.into_inner().aggregated_payload_size;
    let sum: usize = REQUESTS.iter().sum();
    ensure!(
        usize::try_from(got) == Ok(sum),
        "expected {sum} bytes to have arrived, got {got}"
    );
    Ok(())
}

pub(super) async fn server_streaming(tunnel: TunnelChannel) -> Result<()> {
    let response = client(tunnel)
        .streaming_output_call(output_request(0, &RESPONSES))
        .await
        .succeeds("a call with a stream of responses")?;
    let mut responses = response.into_inner();
    for size in RESPONSES {
        expect_response(responses.message().await.succeeds("a response")?, size)?;
    }
    expect_end(responses.message().await.succeeds("the end")?)
}

pub(super) async fn ping_pong(tunnel: TunnelChannel) -> Result<()> {
    let (sender, requests) = mpsc::channel(1);
    let call = ReceiverStream::new(requests);
    let mut client = client(tunnel);
    // Headers need not come before the first response, nor that before the first request.
    sender
        .send(output_request(REQUESTS[0], &RESPONSES[..1]))
        .await?;
    let response = client
        .full_duplex_call(call)
        .await
        .succeeds("a ping-pong")?;
    let mut responses = response.into_inner();
    for (index, size) in RESPONSES.into_iter().enumerate() {
        if index > 0 {
            sender
                .send(output_request(REQUESTS[index], &[size]))
                .await?;
        }
        expect_response(responses.message().await.succeeds("a pong")?, size)?;
    }
    drop(sender);
    expect_end(responses.message().await.succeeds("the end")?)
}

pub(super) async fn empty_stream(tunnel: TunnelChannel) -> Result<()> {
    let response = client(tunnel)
        .full_duplex_call(stream::empty())
        .await
        .succeeds("a call without messages")?;
    let mut responses = response.into_inner();
    expect_end(responses.message().await.succeeds("the end")?)
}

fn expect_response(got: Option<StreamingOutputCallResponse>, size: i32) -> Result<()> {
    let response = got.context("expected another response, got the end")?;
    expect_payload(response.payload.as_ref(), size)
}

pub(super) fn expect_end(got: Option<StreamingOutputCallResponse>) -> Result<()> {
    ensure!(got.is_none(), "expected the end, got another response");
    Ok(())
}
