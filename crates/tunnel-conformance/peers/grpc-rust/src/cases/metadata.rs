//! Metadata there and back.

use anyhow::{Context, Result, ensure};
use futures::stream;
use tonic::Request;
use tonic::metadata::MetadataMap;
use tunnel_client::TunnelChannel;

use super::kinds::{expect_end, expect_payload, output_request, zeros};
use super::{Succeeds, client};
use crate::proto::official::SimpleRequest;

const INITIAL: &str = "x-grpc-test-echo-initial";
const INITIAL_VALUE: &str = "test_initial_metadata_value";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
const TRAILING_VALUE: &[u8] = &[0xab; 6];
/// What the original cases send, which a peer may take for text.
const TRAILING_ASCII: &[u8] = b"\x0a\x0b\x0a\x0b\x0a\x0b";

pub(super) async fn custom_metadata(tunnel: TunnelChannel) -> Result<()> {
    there_and_back(tunnel.clone(), TRAILING_ASCII).await?;
    let what = "where the binary value is not ASCII";
    there_and_back(tunnel, TRAILING_VALUE).await.context(what)
}

async fn there_and_back(tunnel: TunnelChannel, trailing: &[u8]) -> Result<()> {
    let mut client = client(tunnel);
    let request = SimpleRequest {
        response_size: 1,
        payload: zeros(1),
        ..SimpleRequest::default()
    };
    let response = client.unary_call(with_metadata(request, trailing)).await;
    let response = response.succeeds("a unary call")?;
    // tonic shows headers and trailers of such a call as one.
    expect_initial(response.metadata())?;
    expect_trailing(response.metadata(), trailing)?;
    expect_payload(response.into_inner().payload.as_ref(), 1)?;

    let requests = stream::iter([output_request(1, &[1])]);
    let response = client
        .full_duplex_call(with_metadata(requests, trailing))
        .await
        .succeeds("a call with streams")?;
    expect_initial(response.metadata())?;
    let mut responses = response.into_inner();
    let first = responses.message().await.succeeds("a response")?;
    let first = first.context("expected a response, got the end")?;
    expect_payload(first.payload.as_ref(), 1)?;
    expect_end(responses.message().await.succeeds("the end")?)?;
    let trailers = responses.trailers().await.succeeds("trailers")?;
    expect_trailing(&trailers.unwrap_or_default(), trailing)
}

fn with_metadata<T>(message: T, trailing: &[u8]) -> Request<T> {
    use tonic::metadata::{BinaryMetadataValue, MetadataValue};

    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(INITIAL, MetadataValue::from_static(INITIAL_VALUE));
    metadata.insert_bin(TRAILING, BinaryMetadataValue::from_bytes(trailing));
    request
}

fn expect_initial(headers: &MetadataMap) -> Result<()> {
    let got: Vec<_> = headers.get_all(INITIAL).iter().collect();
    ensure!(
        got == [INITIAL_VALUE],
        "expected {INITIAL:?} to be {INITIAL_VALUE:?}, got {got:?}"
    );
    Ok(())
}

fn expect_trailing(trailers: &MetadataMap, value: &[u8]) -> Result<()> {
    let got = trailers.get_all_bin(TRAILING).iter();
    let got: Vec<_> = got
        .map(|value| value.to_bytes())
        .collect::<Result<_, _>>()?;
    ensure!(
        got == [value],
        "expected {TRAILING:?} to be {value:?}, got {got:?}"
    );
    Ok(())
}
