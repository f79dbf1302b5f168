//! `grpchantesting.TestService`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message as _;
use tonic::metadata::{
    BinaryMetadataKey, BinaryMetadataValue, KeyAndValueRef, MetadataKey, MetadataMap,
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::ending::{Reply, Trailers};
use crate::proto::battery::Message;
use crate::proto::battery::test_service_server::TestService;

/// Does what the battery asks for.
pub(crate) struct Battery;

type Messages = BoxStream<'static, Result<Message, Status>>;
type Entries = BTreeMap<String, Bytes>;

#[tonic::async_trait]
impl TestService for Battery {
    type ServerStreamStream = Messages;
    type BidiStreamStream = Messages;

    async fn unary(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        let seen = entries(request.metadata());
        let request = request.into_inner();
        answer(request, |request| Message {
            headers: seen,
            payload: request.payload,
            ..Message::default()
        })
        .await
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Message>, Status> {
        let seen = entries(request.metadata());
        let mut requests = request.into_inner();
        let mut last = Message::default();
        let mut count = 0;
        // A request that asks for a failure is the last one that counts.
        while last.code == 0
            && let Some(request) = requests.message().await?
        {
            last = request;
            count += 1;
        }
        answer(last, |last| Message {
            headers: seen,
            payload: last.payload,
            count,
            ..Message::default()
        })
        .await
    }

    async fn server_stream(&self, request: Request<Message>) -> Result<Response<Messages>, Status> {
        let headers = entries(request.metadata());
        let request = request.into_inner();
        delay(&request).await;
        let reply = reply(&request)?;
        let response = Message {
            headers,
            payload: request.payload.clone(),
            ..Message::default()
        };
        let count = usize::try_from(request.count).unwrap_or(0);
        let responses = stream::repeat(response).take(count).map(Ok);
        let failure = stream::iter(failure(&request).map(Err));
        Ok(reply.response(responses.chain(failure).boxed()))
    }

    async fn bidi_stream(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Messages>, Status> {
        let seen = entries(request.metadata());
        let mut requests = request.into_inner();
        let first = requests.message().await?;
        let mut reply = Reply::default();
        if let Some(first) = &first {
            reply.headers = metadata(&first.headers)?;
        }
        let exchange = Exchange {
            half_duplex: first.as_ref().is_some_and(|first| first.count < 0),
            first,
            requests,
            seen,
            last: Message::default(),
            count: 0,
            done: false,
            responses: VecDeque::new(),
            trailers: reply.trailers.clone(),
        };
        let responses = stream::try_unfold(exchange, |mut exchange| async {
            let next = exchange.next().await?;
            Ok(next.map(|message| (message, exchange)))
        });
        Ok(reply.response(responses.boxed()))
    }

    async fn use_external_message_twice(&self, _: Request<()>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

/// A call with a stream of requests and one of responses.
struct Exchange {
    /// Was read before the response could begin.
    first: Option<Message>,
    requests: Streaming<Message>,
    /// The metadata of the call.
    seen: Entries,
    half_duplex: bool,
    last: Message,
    count: i32,
    /// Whether no request is read any more.
    done: bool,
    responses: VecDeque<Message>,
    trailers: Trailers,
}

impl Exchange {
    async fn next(&mut self) -> Result<Option<Message>, Status> {
        while !self.done && (self.half_duplex || self.responses.is_empty()) {
            self.read().await?;
        }
        if let Some(response) = self.responses.pop_front() {
            return Ok(Some(response));
        }
        self.trailers.set(metadata(&self.last.trailers)?);
        failure(&self.last).map_or(Ok(None), Err)
    }

    async fn read(&mut self) -> Result<(), Status> {
        let request = match self.first.take() {
            Some(first) => Some(first),
            None => self.requests.message().await?,
        };
        let Some(request) = request else {
            self.done = true;
            return Ok(());
        };
        delay(&request).await;
        self.count += 1;
        self.done = request.code != 0;
        if !self.done {
            self.responses.push_back(Message {
                headers: self.seen.clone(),
                payload: request.payload.clone(),
                count: self.count,
                ..Message::default()
            });
        }
        self.last = request;
        Ok(())
    }
}

/// Answers a request once, or fails as it says.
async fn answer(
    request: Message,
    respond: impl FnOnce(Message) -> Message,
) -> Result<Response<Message>, Status> {
    delay(&request).await;
    let reply = reply(&request)?;
    Ok(match failure(&request) {
        Some(status) => reply.failure(status),
        None => reply.response(respond(request)),
    })
}

async fn delay(request: &Message) {
    if let Ok(millis @ 1..) = u64::try_from(request.delay_millis) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

/// A reply with the metadata that a request asks for.
fn reply(request: &Message) -> Result<Reply, Status> {
    let reply = Reply {
        headers: metadata(&request.headers)?,
        ..Reply::default()
    };
    reply.trailers.set(metadata(&request.trailers)?);
    Ok(reply)
}

/// The failure that a request asks for.
fn failure(request: &Message) -> Option<Status> {
    (request.code != 0).then(|| {
        let status = tunnel_proto::google::rpc::Status {
            code: request.code,
            message: "error".to_owned(),
            details: request.error_details.clone(),
        };
        let details = Bytes::from(status.encode_to_vec());
        Status::with_details(Code::from_i32(status.code), status.message, details)
    })
}

/// The metadata that a message asks for.
pub(crate) fn metadata(entries: &Entries) -> Result<MetadataMap, Status> {
    let mut metadata = MetadataMap::new();
    for (key, value) in entries {
        let refuse = || Status::invalid_argument(format!("metadata {key:?} cannot be sent"));
        if key.ends_with("-bin") {
            let key = BinaryMetadataKey::from_bytes(key.as_bytes()).map_err(|_| refuse())?;
            metadata.insert_bin(key, BinaryMetadataValue::from_bytes(value));
        } else {
            let key = MetadataKey::from_bytes(key.as_bytes()).map_err(|_| refuse())?;
            let value = value.as_ref().try_into().map_err(|_| refuse())?;
            metadata.insert(key, value);
        }
    }
    Ok(metadata)
}

/// The last value of each key.
pub(crate) fn entries(metadata: &MetadataMap) -> Entries {
    let mut entries = Entries::new();
    for entry in metadata.iter() {
        match entry {
            KeyAndValueRef::Ascii(key, value) => {
                let value = Bytes::copy_from_slice(value.as_bytes());
                entries.insert(key.to_string(), value);
            }
            KeyAndValueRef::Binary(key, value) => {
                // Base64 that is none is not worth a failure here.
                if let Ok(value) = value.to_bytes() {
                    entries.insert(key.to_string(), value);
                }
            }
        }
    }
    entries
}
