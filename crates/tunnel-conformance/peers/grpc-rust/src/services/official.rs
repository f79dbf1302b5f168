//! `grpc.testing.TestService`.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::ending::Reply;
use crate::proto::official::test_service_server::TestService;
use crate::proto::official::{
    EchoStatus, Empty, Payload, PayloadType, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse,
};

/// A request with this key gets its value back in the headers.
const INITIAL: &str = "x-grpc-test-echo-initial";

/// A request with this key gets its value back in the trailers.
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// Does what the interop cases ask for.
pub(crate) struct Official;

type Outputs = BoxStream<'static, Result<StreamingOutputCallResponse, Status>>;

#[tonic::async_trait]
impl TestService for Official {
    type StreamingOutputCallStream = Outputs;
    type FullDuplexCallStream = Outputs;
    type HalfDuplexCallStream = Outputs;

    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let reply = echoing(request.metadata());
        let request = request.into_inner();
        if let Err(status) = check(request.response_status) {
            return Ok(reply.failure(status));
        }
        let payload = Some(payload(request.response_type, request.response_size)?);
        Ok(reply.response(SimpleResponse { payload }))
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Outputs>, Status> {
        let reply = echoing(request.metadata());
        Ok(reply.response(outputs(request.into_inner())?.boxed()))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let mut requests = request.into_inner();
        let mut size = 0;
        while let Some(request) = requests.message().await? {
            size += request.payload.map_or(0, |payload| payload.body.len());
        }
        let aggregated_payload_size =
            i32::try_from(size).map_err(|_| Status::out_of_range("too much to tell"))?;
        Ok(Response::new(StreamingInputCallResponse {
            aggregated_payload_size,
        }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Outputs>, Status> {
        let reply = echoing(request.metadata());
        let requests = request.into_inner();
        let responses = requests.map(|request| outputs(request?)).try_flatten();
        Ok(reply.response(responses.boxed()))
    }

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Outputs>, Status> {
        let reply = echoing(request.metadata());
        let requests: Vec<_> = request.into_inner().try_collect().await?;
        let responses = stream::iter(requests).map(outputs).try_flatten();
        Ok(reply.response(responses.boxed()))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("nothing implements this method"))
    }
}

/// A reply with the metadata that the request wants back.
fn echoing(request: &MetadataMap) -> Reply {
    let mut reply = Reply::default();
    if let Some(value) = request.get(INITIAL) {
        reply.headers.insert(INITIAL, value.clone());
    }
    if let Some(value) = request.get_bin(TRAILING) {
        let mut trailers = MetadataMap::new();
        trailers.insert_bin(TRAILING, value.clone());
        reply.trailers.set(trailers);
    }
    reply
}

/// The failure that a request asks for.
fn check(wanted: Option<EchoStatus>) -> Result<(), Status> {
    match wanted {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from_i32(code), message))
        }
        _ => Ok(()),
    }
}

/// The responses that a request asks for.
fn outputs(
    request: StreamingOutputCallRequest,
) -> Result<impl Stream<Item = Result<StreamingOutputCallResponse, Status>>, Status> {
    check(request.response_status)?;
    let kind = request.response_type;
    let responses = stream::iter(request.response_parameters);
    Ok(responses.then(move |parameters| output(kind, parameters)))
}

async fn output(
    kind: i32,
    parameters: ResponseParameters,
) -> Result<StreamingOutputCallResponse, Status> {
    if let Ok(micros @ 1..) = u64::try_from(parameters.interval_us) {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
    let payload = Some(payload(kind, parameters.size)?);
    Ok(StreamingOutputCallResponse { payload })
}

fn payload(kind: i32, size: i32) -> Result<Payload, Status> {
    let size = usize::try_from(size)
        .map_err(|_| Status::invalid_argument(format!("there is no size {size}")))?;
    if PayloadType::try_from(kind) != Ok(PayloadType::Compressable) {
        let message = format!("there is no type {kind} of payloads");
        return Err(Status::invalid_argument(message));
    }
    let body = Bytes::from(vec![0; size]);
    Ok(Payload { r#type: kind, body })
}
