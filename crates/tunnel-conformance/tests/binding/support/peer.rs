//! Peers on the outer call that the test controls, frame by frame or byte by byte.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tower::{Service, ServiceExt};
use tunnel_conformance::TcpServer;
use tunnel_core::{NEGOTIATE_HEADER, NEGOTIATE_VALUE};
use tunnel_proto::google::rpc;
use tunnel_proto::grpctunnel::v1::{
    ClientToServer, CloseStream, MessageData, Metadata, NewStream, ServerToClient, Settings,
    client_to_server, server_to_client,
};
use tunnel_server::{TunnelServiceServer, server_for_tunnels};
use tunnel_tonic::outer::{OPEN_TUNNEL_PATH, SERVICE_NAME};

use super::body::{Piece, Pieces, message};

/// Sends a caller's frames and receives a handler's.
pub(crate) type RawCaller = Raw<ClientToServer, ServerToClient>;

/// Sends a handler's frames and receives a caller's.
pub(crate) type RawHandler = Raw<ServerToClient, ClientToServer>;

/// One end of an outer call.
pub(crate) struct Raw<Say, Hear> {
    say: Option<mpsc::UnboundedSender<Piece>>,
    hear: Body,
    unread: BytesMut,
    /// The headers of the far end.
    pub(crate) headers: HeaderMap,
    /// The number of received DATA frames of the outer call.
    pub(crate) pieces: usize,
    kinds: PhantomData<fn(Say) -> Hear>,
}

/// What a raw peer received next.
#[derive(Debug)]
pub(crate) enum Heard<T> {
    Frame(T),
    /// The outer call has ended with this status.
    Status(Status),
    /// The outer call has broken. The status is only for messages.
    Broken(#[allow(dead_code)] Status),
    /// The far end has half-closed the outer call.
    End,
}

impl<Say: Message, Hear: Message + Default + std::fmt::Debug> Raw<Say, Hear> {
    fn new(say: mpsc::UnboundedSender<Piece>, hear: Body, headers: HeaderMap) -> Self {
        Self {
            say: Some(say),
            hear,
            unread: BytesMut::new(),
            headers,
            pieces: 0,
            kinds: PhantomData,
        }
    }

    /// Takes the received stream, for a test that reads it itself.
    pub(crate) fn take_hearing(&mut self) -> Body {
        std::mem::take(&mut self.hear)
    }

    /// Sends one frame.
    pub(crate) fn say(&self, frame: Say) {
        self.say_bytes(message(&frame.encode_to_vec()));
    }

    /// Sends bytes as one DATA frame of the outer call.
    pub(crate) fn say_bytes(&self, bytes: impl Into<Bytes>) {
        self.say_piece(Ok(Frame::data(bytes.into())));
    }

    /// Sends any piece of a body. Does nothing if the far end is gone.
    pub(crate) fn say_piece(&self, piece: Piece) {
        let say = self.say.as_ref().expect("this end has not finished");
        let _ = say.send(piece);
    }

    /// Ends this half without another frame.
    pub(crate) fn finish(&mut self) {
        self.say = None;
    }

    /// Drops the receiving half.
    pub(crate) fn stop_listening(&mut self) {
        self.hear = Body::empty();
    }

    /// Receives the next item.
    pub(crate) async fn hear(&mut self) -> Heard<Hear> {
        loop {
            if let Some(frame) = self.whole_frame() {
                return Heard::Frame(Hear::decode(frame).expect("our end sends valid frames"));
            }
            let hear = &mut self.hear;
            match std::future::poll_fn(|cx| Pin::new(&mut *hear).poll_frame(cx)).await {
                None => return Heard::End,
                Some(Err(status)) => return Heard::Broken(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        assert!(!data.is_empty(), "no data frame is empty");
                        self.pieces += 1;
                        self.unread.extend_from_slice(&data);
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().expect("trailers");
                        return Heard::Status(
                            Status::from_header_map(&trailers).expect("a status"),
                        );
                    }
                },
            }
        }
    }

    fn whole_frame(&mut self) -> Option<Bytes> {
        let mut prefix = self.unread.get(..5)?;
        assert_eq!(prefix.get_u8(), 0, "our end does not compress");
        let len = prefix.get_u32() as usize;
        if self.unread.len() < 5 + len {
            return None;
        }
        self.unread.advance(5);
        Some(self.unread.split_to(len).freeze())
    }

    /// Receives the next frame. Panics if there is none.
    pub(crate) async fn expect_frame(&mut self) -> Hear {
        match self.hear().await {
            Heard::Frame(frame) => frame,
            other => panic!("expected a frame, not {other:?}"),
        }
    }

    /// Skips frames up to the end of the outer call, and returns how it ended.
    pub(crate) async fn expect_end(&mut self) -> Heard<Hear> {
        loop {
            match self.hear().await {
                Heard::Frame(_) => {}
                end => return end,
            }
        }
    }
}

fn call_headers(headers: &mut HeaderMap, negotiate: bool) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if negotiate {
        headers.insert(NEGOTIATE_HEADER, HeaderValue::from_static(NEGOTIATE_VALUE));
    }
}

fn spoken() -> (mpsc::UnboundedSender<Piece>, Body) {
    let (say, spoken) = mpsc::unbounded_channel();
    let pieces = stream::unfold(spoken, |mut spoken| async {
        Some((spoken.recv().await?, spoken))
    });
    (say, Body::new(Pieces::new(pieces)))
}

impl<Say: Message, Hear: Message + Default + std::fmt::Debug> Raw<Say, Hear> {
    /// Makes the outer call by hand, with these headers and the usual ones.
    pub(crate) async fn dial<S, B>(
        channel: S,
        path: &'static str,
        headers: HeaderMap,
        negotiate: bool,
    ) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>,
        S::Error: std::fmt::Debug,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<tower::BoxError>,
    {
        let (say, body) = spoken();
        let request = http::Request::post(path).version(http::Version::HTTP_2);
        let mut request = request.body(body).expect("legal");
        *request.headers_mut() = headers;
        request
            .headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        call_headers(request.headers_mut(), negotiate);
        let response = channel.oneshot(request).await.expect("a response comes");
        let (head, hear) = response.into_parts();
        Self::new(say, Body::new(hear), head.headers)
    }
}

/// A new-stream frame of revision one.
fn new_stream(method: &str) -> client_to_server::Frame {
    client_to_server::Frame::NewStream(NewStream {
        method_name: method.to_owned(),
        initial_window_size: 65_536,
        protocol_revision: 1,
        ..Default::default()
    })
}

impl RawCaller {
    /// Opens a tunnel by hand.
    pub(crate) async fn open(channel: Channel, negotiate: bool) -> Self {
        Self::dial(channel, OPEN_TUNNEL_PATH, HeaderMap::new(), negotiate).await
    }

    /// Opens a negotiated tunnel to a service without a connection in between.
    pub(crate) async fn in_process(service: TunnelServiceServer) -> Self {
        Self::dial(service, OPEN_TUNNEL_PATH, HeaderMap::new(), true).await
    }

    /// Opens a negotiated tunnel and receives the settings.
    pub(crate) async fn negotiated(channel: Channel) -> Self {
        let mut caller = Self::open(channel, true).await;
        let first = caller.expect_frame().await;
        assert_eq!(first.stream_id, -1);
        let Some(server_to_client::Frame::Settings(_)) = first.frame else {
            panic!("settings come first, not {first:?}");
        };
        caller
    }

    pub(crate) fn frame(&self, stream_id: i64, frame: client_to_server::Frame) {
        let frame = Some(frame);
        self.say(ClientToServer { stream_id, frame });
    }

    /// Begins a call of revision one.
    pub(crate) fn begin(&self, stream_id: i64, method: &str) {
        self.frame(stream_id, new_stream(method));
    }

    /// Makes calls without request messages, all in one DATA frame.
    pub(crate) fn calls_at_once(&self, ids: RangeInclusive<i64>, method: &str) {
        let mut bytes = Vec::new();
        for stream_id in ids {
            for frame in [new_stream(method), client_to_server::Frame::HalfClose(())] {
                let frame = Some(frame);
                let frame = ClientToServer { stream_id, frame };
                bytes.extend(message(&frame.encode_to_vec()));
            }
        }
        self.say_bytes(bytes);
    }

    /// Makes a whole unary call with an empty request.
    pub(crate) fn call(&self, stream_id: i64, method: &str) {
        self.begin(stream_id, method);
        let empty = MessageData::default();
        self.frame(stream_id, client_to_server::Frame::RequestMessage(empty));
        self.frame(stream_id, client_to_server::Frame::HalfClose(()));
    }

    /// Receives frames until the call is closed. Returns its code and message.
    pub(crate) async fn expect_close(&mut self, stream_id: i64) -> (Code, String) {
        loop {
            let heard = self.expect_frame().await;
            if heard.stream_id == stream_id
                && let Some(server_to_client::Frame::CloseStream(close)) = heard.frame
            {
                let status = close.status.unwrap_or_default();
                return (Code::from_i32(status.code), status.message);
            }
        }
    }
}

impl RawHandler {
    pub(crate) fn frame(&self, stream_id: i64, frame: server_to_client::Frame) {
        let frame = Some(frame);
        self.say(ServerToClient { stream_id, frame });
    }

    /// Sends settings with these revisions.
    pub(crate) fn settings(&self, revisions: &[i32]) {
        let settings = Settings {
            supported_protocol_revisions: revisions.to_vec(),
            initial_window_size: 65_536,
        };
        self.frame(-1, server_to_client::Frame::Settings(settings));
    }

    pub(crate) fn response_headers(&self, stream_id: i64, md: Metadata) {
        self.frame(stream_id, server_to_client::Frame::ResponseHeaders(md));
    }

    /// Sends the first bytes of a response message of `size` bytes.
    pub(crate) fn response_message(&self, stream_id: i64, size: u32, data: &[u8]) {
        let data = Bytes::copy_from_slice(data);
        let message = MessageData {
            size,
            data,
            ..Default::default()
        };
        self.frame(stream_id, server_to_client::Frame::ResponseMessage(message));
    }

    pub(crate) fn close(&self, stream_id: i64, code: Code, trailers: Metadata) {
        let status = rpc::Status {
            code: code as i32,
            ..Default::default()
        };
        let close = CloseStream {
            response_trailers: Some(trailers),
            status: Some(status),
        };
        self.frame(stream_id, server_to_client::Frame::CloseStream(close));
    }

    /// Receives frames until a call begins. Returns its id.
    pub(crate) async fn expect_call(&mut self) -> i64 {
        loop {
            let heard = self.expect_frame().await;
            if let Some(client_to_server::Frame::NewStream(_)) = heard.frame {
                return heard.stream_id;
            }
        }
    }

    /// Receives frames until the request of a call is finished.
    pub(crate) async fn expect_half_close(&mut self, stream_id: i64) {
        loop {
            let heard = self.expect_frame().await;
            if heard.stream_id == stream_id
                && let Some(client_to_server::Frame::HalfClose(())) = heard.frame
            {
                return;
            }
        }
    }

    /// Ends the outer call with a status.
    pub(crate) fn end(&mut self, status: &Status) {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("legal");
        self.say_piece(Ok(Frame::trailers(trailers)));
        self.finish();
    }
}

/// Builds the metadata of a frame.
pub(crate) fn md(entries: &[(&str, &str)]) -> Metadata {
    let mut md = Metadata::default();
    for (key, value) in entries {
        let values = md.md.entry((*key).to_owned()).or_default();
        values.val.push((*value).to_owned());
    }
    md
}

/// An unanswered outer call at a [`RawServer`].
pub(crate) struct Opening {
    pub(crate) request: http::Request<Body>,
    respond: oneshot::Sender<http::Response<Body>>,
}

impl Opening {
    /// Answers with response headers. The test then controls the tunnel.
    pub(crate) fn accept(self, negotiate: bool) -> RawHandler {
        let (say, body) = spoken();
        let mut response = http::Response::new(body);
        call_headers(response.headers_mut(), negotiate);
        let (head, hear) = self.request.into_parts();
        let _ = self.respond.send(response);
        RawHandler::new(say, hear, head.headers)
    }

    /// Answers with any response.
    pub(crate) fn respond(self, response: http::Response<Body>) {
        let _ = self.respond.send(response);
    }
}

/// A service for tunnels whose answers the test gives.
#[derive(Clone)]
pub(crate) struct RawService {
    openings: mpsc::UnboundedSender<Opening>,
}

/// A new service, and the outer calls that it receives.
pub(crate) fn raw_service() -> (RawService, mpsc::UnboundedReceiver<Opening>) {
    let (openings, opened) = mpsc::unbounded_channel();
    (RawService { openings }, opened)
}

impl tonic::server::NamedService for RawService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for RawService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (respond, response) = oneshot::channel();
        let opening = Opening { request, respond };
        let _ = self.openings.send(opening);
        Box::pin(async {
            match response.await {
                Ok(response) => Ok(response),
                // The test dropped the call without an answer.
                Err(_) => Ok(Status::cancelled("the test has ended").into_http()),
            }
        })
    }
}

/// A far end of tunnels over TCP that the test controls.
pub(crate) struct RawServer {
    pub(crate) server: TcpServer,
    openings: mpsc::UnboundedReceiver<Opening>,
}

impl RawServer {
    pub(crate) async fn start() -> Self {
        let (service, openings) = raw_service();
        let routes = Routes::new(service);
        let server = TcpServer::start(server_for_tunnels(Server::builder()), routes).await;
        Self { server, openings }
    }

    /// The next outer call, if one has arrived.
    pub(crate) fn opening_so_far(&mut self) -> Option<Opening> {
        self.openings.try_recv().ok()
    }

    /// Waits for the next outer call.
    pub(crate) async fn opening(&mut self) -> Opening {
        let opening = self.openings.recv().await;
        opening.expect("the server lives")
    }
}
