//! Makes calls of all kinds with one set of functions.

use futures::stream::{BoxStream, StreamExt};
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status, Streaming};

use crate::proto::test_service_client::TestServiceClient;
use crate::proto::{self, Response, Script};
use crate::{Client, TestChannel};

/// The four kinds of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, a stream of responses.
    ServerStream,
    /// A stream of requests, one response.
    ClientStream,
    /// A stream of requests and a stream of responses.
    Bidi,
}

impl Kind {
    /// All four kinds.
    pub const ALL: [Self; 4] = [
        Self::Unary,
        Self::ServerStream,
        Self::ClientStream,
        Self::Bidi,
    ];

    /// The kinds with a stream of requests.
    pub const UPLOADS: [Self; 2] = [Self::ClientStream, Self::Bidi];

    /// The kinds with a stream of responses.
    pub const DOWNLOADS: [Self; 2] = [Self::ServerStream, Self::Bidi];

    /// Whether the requests are a stream.
    pub fn uploads(self) -> bool {
        Self::UPLOADS.contains(&self)
    }

    /// Whether the responses are a stream.
    pub fn downloads(self) -> bool {
        Self::DOWNLOADS.contains(&self)
    }

    /// `many` if the requests are a stream, otherwise 1.
    pub fn requests(self, many: u64) -> u64 {
        if self.uploads() { many } else { 1 }
    }

    /// `many` if the responses are a stream, otherwise 1.
    pub fn responses(self, many: u64) -> u64 {
        if self.downloads() { many } else { 1 }
    }

    /// The path of this kind's method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Unary => "/tunnel.conformance.v1.TestService/Unary",
            Self::ServerStream => "/tunnel.conformance.v1.TestService/ServerStream",
            Self::ClientStream => "/tunnel.conformance.v1.TestService/ClientStream",
            Self::Bidi => "/tunnel.conformance.v1.TestService/Bidi",
        }
    }
}

/// A client without limits on message sizes.
pub fn unlimited(channel: TestChannel) -> Client {
    TestServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// A call whose response headers have arrived. Dropping this value cancels the call.
#[derive(Debug)]
pub struct Ongoing {
    /// The response headers. For kinds with one response they also contain the trailers, because
    /// tonic returns that response together with the end of the call.
    pub headers: MetadataMap,
    replies: Replies,
}

#[derive(Debug)]
enum Replies {
    One(Option<Response>),
    Many(Box<Streaming<Response>>),
}

impl Ongoing {
    /// The next response message, or `None` at a clean end.
    pub async fn next(&mut self) -> Result<Option<Response>, Status> {
        match &mut self.replies {
            Replies::One(one) => Ok(one.take()),
            Replies::Many(many) => many.message().await,
        }
    }

    /// The next response message. Panics if there is none.
    #[track_caller]
    pub fn expect_next(&mut self) -> impl Future<Output = Response> {
        let caller = std::panic::Location::caller();
        async move {
            match self.next().await {
                Ok(Some(response)) => response,
                other => panic!("a response should come, not {other:?}, at {caller}"),
            }
        }
    }

    /// Reads the call to its end.
    pub async fn outcome(mut self) -> Outcome {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(status) => return Outcome::new(Some(self.headers), messages, Err(status)),
            }
        }
        let end = match self.replies {
            Replies::One(_) => Ok(self.headers.clone()),
            Replies::Many(mut many) => many.trailers().await.map(Option::unwrap_or_default),
        };
        Outcome::new(Some(self.headers), messages, end)
    }
}

/// Starts a call and waits for its response headers.
///
/// For kinds with one request this sends the first message of the stream.
pub async fn open<T, S>(
    client: &TestServiceClient<T>,
    kind: Kind,
    request: Request<S>,
) -> Result<Ongoing, Status>
where
    T: tonic::client::GrpcService<tonic::body::Body> + Clone,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tower::BoxError> + Send,
    S: Stream<Item = proto::Request> + Send + 'static,
{
    let mut client = client.clone();
    let (metadata, replies) = match kind {
        Kind::Unary => {
            let response = client.unary(first(request).await).await?;
            let (metadata, message, _) = response.into_parts();
            (metadata, Replies::One(Some(message)))
        }
        Kind::ServerStream => {
            let response = client.server_stream(first(request).await).await?;
            let (metadata, messages, _) = response.into_parts();
            (metadata, Replies::Many(Box::new(messages)))
        }
        Kind::ClientStream => {
            let response = client.client_stream(request).await?;
            let (metadata, message, _) = response.into_parts();
            (metadata, Replies::One(Some(message)))
        }
        Kind::Bidi => {
            let response = client.bidi(request).await?;
            let (metadata, messages, _) = response.into_parts();
            (metadata, Replies::Many(Box::new(messages)))
        }
    };
    Ok(Ongoing {
        headers: metadata,
        replies,
    })
}

async fn first<S>(request: Request<S>) -> Request<proto::Request>
where
    S: Stream<Item = proto::Request> + Send + 'static,
{
    let (metadata, extensions, messages) = request.into_parts();
    let mut messages: BoxStream<'static, _> = messages.boxed();
    let message = messages.next().await.unwrap_or_default();
    Request::from_parts(metadata, extensions, message)
}

/// Makes a call and reads it to its end.
pub async fn call<T, S>(client: &TestServiceClient<T>, kind: Kind, request: Request<S>) -> Outcome
where
    T: tonic::client::GrpcService<tonic::body::Body> + Clone,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tower::BoxError> + Send,
    S: Stream<Item = proto::Request> + Send + 'static,
{
    match open(client, kind, request).await {
        Ok(ongoing) => ongoing.outcome().await,
        Err(status) => Outcome::new(None, Vec::new(), Err(status)),
    }
}

/// Makes a call with a script and request messages, and reads it to its end.
pub async fn run(
    client: &Client,
    kind: Kind,
    script: &Script,
    messages: Vec<proto::Request>,
) -> Outcome {
    call(
        client,
        kind,
        script.request(futures::stream::iter(messages)),
    )
    .await
}

/// The complete result of a call.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The response headers, if they arrived.
    pub headers: Option<MetadataMap>,
    /// The response messages.
    pub messages: Vec<Response>,
    /// The trailers of a success, or the status of a failure.
    pub end: Result<MetadataMap, Status>,
}

impl Outcome {
    fn new(
        headers: Option<MetadataMap>,
        messages: Vec<Response>,
        end: Result<MetadataMap, Status>,
    ) -> Self {
        Self {
            headers,
            messages,
            end,
        }
    }

    /// The messages. Panics unless the call succeeded.
    #[track_caller]
    pub fn expect_success(&self) -> &[Response] {
        if let Err(status) = &self.end {
            panic!(
                "the call should succeed, not fail after {} messages with {status:?}",
                self.messages.len()
            );
        }
        &self.messages
    }

    /// The status. Panics unless the call failed with this code.
    #[track_caller]
    pub fn expect_failure(&self, code: Code) -> &Status {
        match &self.end {
            Ok(_) => panic!(
                "the call should fail with {code:?}, not succeed with {} messages",
                self.messages.len()
            ),
            Err(status) => {
                assert_eq!(status.code(), code, "{status:?}");
                status
            }
        }
    }

    /// The trailers. Panics unless the call succeeded.
    #[track_caller]
    pub fn expect_trailers(&self) -> &MetadataMap {
        self.expect_success();
        self.end.as_ref().expect("a success has trailers")
    }
}
