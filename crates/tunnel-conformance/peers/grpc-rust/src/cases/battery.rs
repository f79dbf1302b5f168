//! The channel battery: for each kind of call one that succeeds, one that fails,
//! one that runs out of time and one that is cancelled. The Go program runs the
//! original; these do the same as seen from tonic.

use std::collections::BTreeMap;
use std::time::Duration;
use std::vec;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::stream;
use prost::Message as _;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};
use tunnel_client::TunnelChannel;

use super::{described, none_in_flight, statuses};
use crate::proto::battery::Message;
use crate::proto::battery::test_service_client::TestServiceClient;
use crate::services::{entries, metadata};

const PAYLOAD: &[u8] = &[100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0];
const DELAY_MILLIS: i32 = 500;
const IMPATIENCE: Duration = Duration::from_millis(100);

/// A kind of call.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Unary,
    ClientStream,
    ServerStream,
    /// Responses come when there are no more requests.
    HalfDuplex,
    /// Each request gets its response at once.
    FullDuplex,
}

/// How a call is to end.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Success,
    Failure,
    Timeout,
    Canceled,
}

/// What came of a call.
#[derive(Debug, Default)]
struct Answer {
    /// Of a call with one response these are the trailers too, which tonic shows as one.
    headers: MetadataMap,
    messages: Vec<Message>,
    trailers: MetadataMap,
    failure: Option<Status>,
}

type Client = TestServiceClient<TunnelChannel>;
type Entries = BTreeMap<String, Bytes>;

pub(super) async fn run(tunnel: TunnelChannel, kind: Kind, outcome: Outcome) -> Result<()> {
    let client = TestServiceClient::new(tunnel.clone());
    match outcome {
        Outcome::Success => succeed(client, kind).await,
        Outcome::Failure => fail(client, kind).await,
        Outcome::Timeout => {
            let call = exchange(client, kind, vec![slow(kind)], Some(IMPATIENCE)).await?;
            let status = call.failure.map_or(Ok(call.messages), Err);
            statuses::expect(status, Code::DeadlineExceeded, None)
        }
        Outcome::Canceled => {
            let call = exchange(client, kind, vec![slow(kind)], None);
            if let Ok(early) = tokio::time::timeout(IMPATIENCE, call).await {
                bail!("expected a call that takes its time, got {early:?}");
            }
            none_in_flight(&tunnel).await;
            Ok(())
        }
    }
}

async fn succeed(client: Client, kind: Kind) -> Result<()> {
    let count = if kind.has_request_stream() { 3 } else { 1 };
    let answer = exchange(client, kind, vec![request(kind, 5); count], None).await?;
    if let Some(status) = &answer.failure {
        return Err(described(status)).context("expected OK");
    }
    let expected = match kind {
        Kind::Unary | Kind::ClientStream => 1,
        Kind::ServerStream => 5,
        Kind::HalfDuplex | Kind::FullDuplex => 3,
    };
    let got = answer.messages.len();
    ensure!(got == expected, "expected {expected} responses, got {got}");
    if kind == Kind::ClientStream {
        let got = answer.messages[0].count;
        ensure!(got == 3, "expected 3 requests to be counted, got {got}");
    }
    answer.check(kind)
}

async fn fail(client: Client, kind: Kind) -> Result<()> {
    let code = match kind {
        Kind::Unary => Code::AlreadyExists,
        Kind::ClientStream => Code::ResourceExhausted,
        Kind::ServerStream => Code::FailedPrecondition,
        Kind::HalfDuplex | Kind::FullDuplex => Code::DataLoss,
    };
    let failing = Message {
        code: code.into(),
        error_details: details()?,
        ..request(kind, 2)
    };
    let requests = match kind {
        Kind::HalfDuplex | Kind::FullDuplex => vec![request(kind, 2), failing],
        _ => vec![failing],
    };
    let answer = exchange(client, kind, requests, None).await?;
    let status = answer
        .failure
        .clone()
        .context("expected a failure, got OK")?;
    statuses::expect(Err::<(), _>(status.clone()), code, Some("error"))?;
    let got = tunnel_proto::google::rpc::Status::decode(status.details())?;
    let expected = details()?;
    ensure!(
        got.details == expected,
        "expected the details {expected:?}, got {:?}",
        got.details
    );
    answer.check(kind)
}

impl Kind {
    fn has_request_stream(self) -> bool {
        !matches!(self, Self::Unary | Self::ServerStream)
    }

    fn has_response_stream(self) -> bool {
        !matches!(self, Self::Unary | Self::ClientStream)
    }
}

impl Answer {
    /// Fails unless everything that was to come back did.
    fn check(&self, kind: Kind) -> Result<()> {
        for message in &self.messages {
            let got = &message.payload;
            ensure!(got == PAYLOAD, "expected {PAYLOAD:?} back, got {got:?}");
            contains("the request's metadata", &message.headers, &sent())?;
        }
        if kind.has_response_stream() || self.failure.is_none() {
            contains("the headers", &entries(&self.headers), &headers())?;
        }
        contains("the trailers", &entries(&self.trailers), &trailers())
    }
}

fn contains(what: &str, got: &Entries, expected: &Entries) -> Result<()> {
    for (key, expected) in expected {
        let got = got.get(key);
        ensure!(
            got == Some(expected),
            "expected {key:?} in {what} to be {expected:?}, got {got:?}"
        );
    }
    Ok(())
}

/// Makes a call, whose failure is part of the answer.
async fn exchange(
    mut client: Client,
    kind: Kind,
    messages: Vec<Message>,
    timeout: Option<Duration>,
) -> Result<Answer> {
    let mut messages = messages.into_iter();
    Ok(match kind {
        Kind::Unary => {
            let first = messages.next().context("there is no request")?;
            once(client.unary(call(first, timeout)?).await)
        }
        Kind::ClientStream => {
            let requests = stream::iter(messages);
            once(client.client_stream(call(requests, timeout)?).await)
        }
        Kind::ServerStream => {
            let first = messages.next().context("there is no request")?;
            several(client.server_stream(call(first, timeout)?).await, None).await
        }
        Kind::HalfDuplex => {
            let requests = stream::iter(messages);
            several(client.bidi_stream(call(requests, timeout)?).await, None).await
        }
        Kind::FullDuplex => {
            let (sender, requests) = mpsc::channel(1);
            let mut pings = Pings { messages, sender };
            pings.send().await;
            let requests = ReceiverStream::new(requests);
            let response = client.bidi_stream(call(requests, timeout)?).await;
            several(response, Some(pings)).await
        }
    })
}

fn call<T>(message: T, timeout: Option<Duration>) -> Result<Request<T>> {
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata(&sent())?;
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    Ok(request)
}

/// The requests of a call whose responses come between them.
struct Pings {
    messages: vec::IntoIter<Message>,
    sender: mpsc::Sender<Message>,
}

impl Pings {
    /// Sends the next request, if there is one.
    async fn send(&mut self) -> bool {
        match self.messages.next() {
            // A call that has ended says so itself.
            Some(message) => self.sender.send(message).await.is_ok(),
            None => false,
        }
    }
}

/// The answer of a method with one response.
fn once(response: Result<Response<Message>, Status>) -> Answer {
    match response {
        Ok(response) => Answer {
            headers: response.metadata().clone(),
            trailers: response.metadata().clone(),
            messages: vec![response.into_inner()],
            failure: None,
        },
        Err(status) => Answer::failed(status),
    }
}

/// The answer of a method with a stream of responses.
async fn several(
    response: Result<Response<Streaming<Message>>, Status>,
    mut pings: Option<Pings>,
) -> Answer {
    let response = match response {
        Ok(response) => response,
        Err(status) => return Answer::failed(status),
    };
    let headers = response.metadata().clone();
    let mut responses = response.into_inner();
    let mut messages = Vec::new();
    let ended = loop {
        match responses.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break responses.trailers().await,
            Err(status) => break Err(status),
        }
        if let Some(more) = &mut pings
            && !more.send().await
        {
            pings = None;
        }
    };
    let answer = match ended {
        Ok(trailers) => Answer {
            trailers: trailers.unwrap_or_default(),
            ..Answer::default()
        },
        Err(status) => Answer::failed(status),
    };
    Answer {
        headers,
        messages,
        ..answer
    }
}

impl Answer {
    fn failed(status: Status) -> Self {
        Self {
            trailers: status.metadata().clone(),
            failure: Some(status),
            ..Self::default()
        }
    }
}

fn request(kind: Kind, responses: i32) -> Message {
    Message {
        payload: Bytes::from_static(PAYLOAD),
        count: match kind {
            Kind::ServerStream => responses,
            Kind::HalfDuplex => -1,
            Kind::Unary | Kind::ClientStream | Kind::FullDuplex => 0,
        },
        headers: headers(),
        trailers: trailers(),
        ..Message::default()
    }
}

fn slow(kind: Kind) -> Message {
    Message {
        delay_millis: DELAY_MILLIS,
        ..request(kind, 5)
    }
}

/// The metadata that each call is sent with.
fn sent() -> Entries {
    named("foo", "bar", "baz", "bedazzle", "pickle-bin")
}

fn headers() -> Entries {
    named("foo1", "bar4", "baz2", "bedazzle5", "pickle3-bin")
}

fn trailers() -> Entries {
    named("4foo4", "7bar7", "5baz5", "8bedazzle8", "6pickle6-bin")
}

fn named(one: &str, text: &'static str, other: &str, more: &'static str, binary: &str) -> Entries {
    [
        (one, text.as_bytes()),
        (other, more.as_bytes()),
        (binary, PAYLOAD),
    ]
    .map(|(key, value)| (key.to_owned(), Bytes::from_static(value)))
    .into()
}

/// The details that a failure is to carry.
fn details() -> Result<Vec<Any>> {
    let (text, number) = ("foo".to_owned(), 456_i64);
    Ok(vec![Any::from_msg(&text)?, Any::from_msg(&number)?])
}
