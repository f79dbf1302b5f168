//! What a case calls with.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use example_support::test::echo_service_client::EchoServiceClient;
use futures::SinkExt as _;
use futures::channel::mpsc;
use futures::stream;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::{IntoRequest, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tunnel_client::TunnelChannel;

use super::expect::{expect, expect_observed, expect_ok, expect_pattern};
use crate::proto::interop_service_client::InteropServiceClient;
use crate::proto::{self as pb, Entry, Script};
use crate::{entry, pattern};

/// One of the four kinds of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unary,
    Server,
    Client,
    Bidi,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Unary, Self::Server, Self::Client, Self::Bidi];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Server => "server stream",
            Self::Client => "client stream",
            Self::Bidi => "bidi",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Unary => "/tunnel.interop.v1.InteropService/Unary",
            Self::Server => "/tunnel.interop.v1.InteropService/ServerStream",
            Self::Client => "/tunnel.interop.v1.InteropService/ClientStream",
            Self::Bidi => "/tunnel.interop.v1.InteropService/Bidi",
        }
    }

    /// Whether requests are a stream.
    pub(super) fn uploads(self) -> bool {
        matches!(self, Self::Client | Self::Bidi)
    }
}

/// Calls through a tunnel, with ordinary stubs.
pub(super) struct Caller {
    name: &'static str,
    tunnel: TunnelChannel,
    named: AtomicU32,
    /// What to blame when time runs out.
    doing: Mutex<String>,
}

/// Everything that a caller learns of a call.
pub(super) struct Outcome {
    pub(super) headers: Vec<Entry>,
    pub(super) responses: Vec<pb::Response>,
    pub(super) trailers: Vec<Entry>,
    pub(super) end: Result<(), Status>,
}

impl Caller {
    pub(super) fn new(name: &'static str, tunnel: TunnelChannel) -> Self {
        Self {
            name,
            tunnel,
            named: AtomicU32::new(0),
            doing: Mutex::new("starting".to_owned()),
        }
    }

    pub(super) fn interop(&self) -> InteropServiceClient<TunnelChannel> {
        InteropServiceClient::new(self.tunnel.clone())
    }

    pub(super) fn echo(&self) -> EchoServiceClient<TunnelChannel> {
        EchoServiceClient::new(self.tunnel.clone())
    }

    /// Takes note of what the case does now.
    pub(super) fn does(&self, what: impl Into<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub(super) fn doing(&self) -> String {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        doing.clone()
    }

    /// A name for a call that no other call has.
    pub(super) fn name_call(&self) -> String {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}-{:x}", self.name, fastrand::u64(..))
    }

    /// Sends all requests, and then reads all responses, of which both are few.
    ///
    /// Goes below the stubs: where there is a single response they give headers
    /// and trailers as one.
    pub(super) async fn call(
        &self,
        kind: Kind,
        requests: impl IntoRequest<Vec<pb::Request>>,
    ) -> Outcome {
        self.does(format!("{}: calling", kind.name()));
        self.call_method(kind.method(), requests).await
    }

    /// The same with any method.
    pub(super) async fn call_method(
        &self,
        method: &'static str,
        requests: impl IntoRequest<Vec<pb::Request>>,
    ) -> Outcome {
        let requests = requests.into_request().map(stream::iter);
        let path = PathAndQuery::from_static(method);
        let mut client = Grpc::new(self.tunnel.clone());
        match client
            .streaming(requests, path, ProstCodec::default())
            .await
        {
            Ok(response) => Outcome::of(response).await,
            Err(status) => Outcome::refused(status),
        }
    }

    /// Opens a bidi stream with its first request: not every handler sends
    /// headers before it has an answer, and tonic waits for them.
    pub(super) async fn bidi(&self, first: pb::Request) -> Result<Bidi> {
        self.does("opening the stream");
        let (mut sender, requests) = mpsc::channel(1);
        sender
            .send(first)
            .await
            .context("a queue that nobody reads")?;
        let opened = self.interop().bidi(requests).await;
        let responses = expect_ok("opening the stream", opened)?.into_inner();
        Ok(Bidi { sender, responses })
    }

    /// Makes a call that is to succeed, and checks all that comes of it.
    pub(super) async fn exchange(
        &self,
        kind: Kind,
        mut script: Script,
        count: u32,
        size: u32,
    ) -> Result<()> {
        script.observe = true;
        let what = kind.name();
        let got = self.call(kind, requests(&script, count, size)).await;
        expect_ok(what, got.end)?;
        let (repeated, scripted, observed) = match kind {
            Kind::Unary | Kind::Client => (0, 1, count),
            Kind::Server => (0, script.responses, count),
            // The first response leaves before the second request is read.
            Kind::Bidi => (count, script.responses, 1),
        };
        let expected = (repeated + scripted) as usize;
        expect(&format!("{what}: responses"), expected, got.responses.len())?;
        for (i, response) in (0..).zip(&got.responses) {
            let (number, bytes) = match i < repeated {
                true => (i, size),
                false => (i - repeated, script.response_bytes),
            };
            let what = format!("{what}: response {i}");
            expect_pattern(&what, script.seed + number, bytes, &response.payload)?;
        }
        let told = got.responses[0].observed.as_ref();
        let (observed, size) = (u64::from(observed), u64::from(size));
        expect_observed(what, observed, observed * size, told)
    }

    /// Checks that the tunnel still works.
    pub(super) async fn usable(&self) -> Result<()> {
        let script = Script {
            response_bytes: 10,
            ..Default::default()
        };
        let call = self.exchange(Kind::Unary, script, 1, 10);
        call.await.context("a call afterwards")
    }
}

impl Outcome {
    /// Reads a stream to its end.
    async fn of(response: Response<Streaming<pb::Response>>) -> Self {
        let (headers, mut stream, _) = response.into_parts();
        let mut outcome = Self {
            headers: entry::from_metadata(&headers),
            responses: Vec::new(),
            trailers: Vec::new(),
            end: Ok(()),
        };
        let end = loop {
            match stream.message().await {
                Ok(Some(response)) => outcome.responses.push(response),
                Ok(None) => break stream.trailers().await,
                Err(status) => break Err(status),
            }
        };
        let trailers = match &end {
            Ok(trailers) => trailers.as_ref(),
            Err(status) => Some(status.metadata()),
        };
        outcome.trailers = trailers.map(entry::from_metadata).unwrap_or_default();
        outcome.end = end.map(drop);
        outcome
    }

    /// A call that ended before there were headers.
    fn refused(status: Status) -> Self {
        Self {
            headers: Vec::new(),
            responses: Vec::new(),
            trailers: entry::from_metadata(status.metadata()),
            end: Err(status),
        }
    }
}

/// A bidi stream in use. Its drop gives the call up.
pub(super) struct Bidi {
    pub(super) sender: mpsc::Sender<pb::Request>,
    pub(super) responses: Streaming<pb::Response>,
}

impl Bidi {
    /// Sends a request. Where that fails, receiving tells why.
    pub(super) async fn send(&mut self, request: pb::Request) {
        let _ = self.sender.send(request).await;
    }

    /// Receives a response that is to be this pattern.
    pub(super) async fn receive(&mut self, what: &str, number: u32, size: u32) -> Result<()> {
        let response = receive(what, &mut self.responses).await?;
        expect_pattern(what, number, size, &response.payload)
    }
}

/// Receives a response, of which there is to be one.
pub(super) async fn receive(
    what: &str,
    responses: &mut Streaming<pb::Response>,
) -> Result<pb::Response> {
    let response = expect_ok(what, responses.message().await)?;
    response.with_context(|| format!("{what}: expected a response, got the end"))
}

/// The messages of a call: patterns of a size, the script in front.
pub(super) fn requests(script: &Script, count: u32, size: u32) -> Vec<pb::Request> {
    (0..count)
        .map(|number| request(script, number, size))
        .collect()
}

/// One of them.
pub(super) fn request(script: &Script, number: u32, size: u32) -> pb::Request {
    pb::Request {
        payload: pattern::of(script.seed + number, size),
        script: (number == 0).then(|| script.clone()),
    }
}
