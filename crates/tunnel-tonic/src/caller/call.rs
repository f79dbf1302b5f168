//! One call made through a tunnel, from its request to its response headers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http_body::Body as _;
use smallvec::SmallVec;
use tonic::Status;
use tonic::body::Body;
use tracing::Span;
use tunnel_core::{CloseStream, Metadata, Read, StreamId};

use super::body::ResponseBody;
use super::guard::{CallGuard, finish};
use super::head::CallHead;
use super::pump::RequestPump;
use super::queue::Place;
use crate::compression::edge::{MessagesOf, decompressed, encoding_of};
use crate::message::{BodyError, BodyWriter};
use crate::shared::now;
use crate::state::State;
use crate::status::{self, from_open_error};
use crate::telemetry::injected;

/// How much of a request body is gathered before its call is opened, in bytes.
const GATHER: usize = 64 << 10;

/// The cost of a data frame of a body in addition to its bytes, so that empty frames are limited
/// too.
const FRAME_OVERHEAD: usize = 16;

/// The response of a call through a tunnel: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub struct ResponseFuture {
    stage: CallStage,
}

enum CallStage {
    /// Not yet polled.
    New(Request),
    /// Waits at the stream limit.
    Queued(Box<Prepared>),
    /// Waits for response headers.
    Open(CallGuard),
    /// Has resolved.
    Done,
}

/// The parts of a call that has not begun.
pub(super) struct Request {
    /// Keeps the tunnel open until the call has begun.
    pub(super) place: Place,
    pub(super) head: CallHead,
    pub(super) body: Body,
}

/// A call that is ready to be opened.
struct Prepared {
    request: Request,
    start: BodyStart,
    /// The span, if it was made before the call was opened.
    span: Option<Span>,
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stage = match &self.stage {
            CallStage::New(_) => "new",
            CallStage::Queued(_) => "queued",
            CallStage::Open(_) => "open",
            CallStage::Done => "done",
        };
        f.debug_struct("ResponseFuture")
            .field("stage", &stage)
            .finish()
    }
}

impl ResponseFuture {
    pub(super) fn new(request: Request) -> Self {
        Self {
            stage: CallStage::New(request),
        }
    }
}

/// The part of a request body that is available before the call is opened.
struct BodyStart {
    data: Pieces,
    /// Whether it has ended.
    finished: bool,
    /// Whether the body was pending.
    pending: bool,
}

/// The data frames of a body's start: one for a unary call.
type Pieces = SmallVec<[Bytes; 2]>;

/// Polls a request body until it is pending, has ended, or has enough data, so that the open, the
/// message and the half-close of a call are sent together.
fn gather(body: &mut Body, cx: &mut Context<'_>) -> Result<BodyStart, Status> {
    let mut data = Pieces::new();
    // Otherwise tokio's task budget could make the body pending in the middle of a batch.
    let end = std::future::poll_fn(|cx| poll_body(body, &mut data, cx));
    let end = pin!(tokio::task::unconstrained(end)).poll(cx);
    let pending = end.is_pending();
    let finished = match end {
        Poll::Ready(Some(end)) => end.map(|()| true)?,
        Poll::Ready(None) | Poll::Pending => false,
    };
    Ok(BodyStart {
        data,
        finished,
        pending,
    })
}

/// Polls a request body. `None` when enough data was gathered.
fn poll_body(
    body: &mut Body,
    data: &mut Pieces,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<(), Status>>> {
    let mut size = 0;
    while size < GATHER {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(Some(Ok(()))),
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            Some(Ok(frame)) => {
                size += FRAME_OVERHEAD;
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    size += bytes.len();
                    data.push(bytes);
                }
            }
        }
    }
    Poll::Ready(None)
}

/// Decompresses the messages of a request for a peer that does not carry them as they are.
fn decompress(request: &mut Request) -> Result<(), Status> {
    let shared = request.place.shared();
    // A tunnel that is not ready has no peer yet, and fails the call.
    if shared.carries_compressed() || !shared.is_ready() {
        return Ok(());
    }
    let encoding = encoding_of(&request.head.headers);
    if encoding.is_some() {
        let body = std::mem::take(&mut request.body);
        let limit = shared.max_message_size();
        request.body = decompressed(body, encoding, MessagesOf::Client, limit)?;
    }
    Ok(())
}

/// Makes the span of a call and adds the metadata of the tunnel's hook, if it has one.
fn inject(request: &mut Request) -> Option<Span> {
    let path = request.head.path.as_ref();
    let path = path.map_or("", PathAndQuery::path);
    let (span, added) = injected(&request.place.shared().telemetry, path)?;
    let added = crate::headers::to_wire(&added);
    let kept = request.head.headers.iter();
    let kept = kept.filter(|(key, _)| added.get(key).is_none());
    let all: Metadata = kept.chain(added.iter()).collect();
    request.head.headers = all;
    Some(span)
}

/// The result of opening a call.
enum Opened {
    /// It is in flight.
    Call(CallGuard, Found),
    /// It waits, because as many calls are in flight as the limits allow.
    Queued(Box<Prepared>),
}

impl Prepared {
    fn new(mut request: Request, cx: &mut Context<'_>) -> Result<Self, Status> {
        decompress(&mut request)?;
        let span = inject(&mut request);
        let start = gather(&mut request.body, cx)?;
        Ok(Self {
            request,
            start,
            span,
        })
    }

    /// Opens the call with the start of its body, and lets a pump send the rest. Looks for the response
    /// under the same lock, and registers for it. At the stream limit the call waits, or fails.
    fn open(mut self, cx: &mut Context<'_>) -> Result<Opened, Status> {
        let shared = self.request.place.shared().clone();
        let mut writer = BodyWriter::new(MessagesOf::Client);
        let opened = shared.with(|state| self.try_open(state, &mut writer, cx))?;
        let Some((id, found)) = opened else {
            return Ok(Opened::Queued(Box::new(self)));
        };
        let path = self.request.head.path.as_ref();
        let path = path.map_or("", PathAndQuery::path);
        let guard = CallGuard::new(shared, id, path, self.span.take());
        if !self.start.finished {
            let pump = RequestPump::new(guard.shared.clone(), id, self.request.body, writer);
            match self.start.pending {
                true => pump.park(),
                false => pump.spawn(),
            }
        }
        Ok(Opened::Call(guard, found))
    }

    /// `None` if the call waits for room.
    fn try_open(
        &mut self,
        state: &mut State,
        writer: &mut BodyWriter,
        cx: &Context<'_>,
    ) -> Result<Option<(StreamId, Found)>, Status> {
        let Request { place, head, .. } = &mut self.request;
        let now = now();
        if !place.enter(state, head, now, cx).map_err(from_open_error)? {
            return Ok(None);
        }
        let method = head.path.as_ref().map_or("", PathAndQuery::path);
        let headers = state.for_peer(std::mem::take(&mut head.headers));
        let id = state
            .conn
            .open(now, method, headers)
            .map_err(from_open_error)?;
        let BodyStart { data, finished, .. } = &mut self.start;
        let fed = data.iter_mut().try_for_each(|bytes| {
            let bytes = std::mem::take(bytes);
            writer.write(bytes, &mut state.conn.send_stream(id))
        });
        let fed = fed.and_then(|()| match finished {
            true => finish(state, id, writer),
            false => Ok(()),
        });
        if let Err(BodyError::Malformed(status)) = fed {
            state.conn.cancel(id);
            return Err(status);
        }
        state.hold(id, if *finished { 1 } else { 2 });
        Ok(Some((id, look(state, id, cx))))
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<ResponseBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let opened = match std::mem::replace(&mut this.stage, CallStage::Done) {
            CallStage::New(request) => Prepared::new(request, cx)?.open(cx)?,
            CallStage::Queued(prepared) => prepared.open(cx)?,
            CallStage::Open(guard) => {
                let found = guard.shared.with(|state| look(state, guard.id, cx));
                Opened::Call(guard, found)
            }
            CallStage::Done => {
                return Poll::Ready(Err(Status::internal(
                    "the response future was polled after it had resolved",
                )));
            }
        };
        let (guard, found) = match opened {
            Opened::Call(guard, found) => (guard, found),
            Opened::Queued(prepared) => {
                this.stage = CallStage::Queued(prepared);
                return Poll::Pending;
            }
        };
        match respond(guard, found) {
            Ok(response) => Poll::Ready(response),
            Err(guard) => {
                this.stage = CallStage::Open(guard);
                Poll::Pending
            }
        }
    }
}

/// The result of looking for a response.
enum Found {
    Headers(Metadata),
    /// No headers: none have arrived, or the call has ended without any.
    None(Read),
}

/// Looks for response headers, or for the end of a call without them. Registers to be woken.
fn look(state: &mut State, id: StreamId, cx: &Context<'_>) -> Found {
    let mut recv = state.recv(id);
    if let Some(headers) = recv.take_headers() {
        return Found::Headers(headers);
    }
    let read = recv.read();
    if read == Read::Pending {
        state.wait_read(id, cx.waker());
    }
    Found::None(read)
}

/// The response, or the call if there is none yet.
fn respond(
    mut call: CallGuard,
    found: Found,
) -> Result<Result<http::Response<ResponseBody>, Status>, CallGuard> {
    let read = match found {
        Found::Headers(headers) => return Ok(Ok(response(&headers, call))),
        Found::None(Read::Pending) => return Err(call),
        Found::None(read) => read,
    };
    let (code, response) = match read {
        Read::Closed(close) => {
            let code = close.status.code;
            let response = match status::not_processed(&close) {
                Some(status) => Err(status),
                None => Ok(trailers_only(close, call.shared.carries_compressed())),
            };
            (code, response)
        }
        Read::Failed(error) => (error.code, Err(status::from_stream_error(error))),
        _ => {
            let status = call.gone();
            (status::code_to_wire(status.code()), Err(status))
        }
    };
    call.end(code);
    Ok(response)
}

/// How many entries tonic adds to the headers of a unary response: those of its trailers.
const ADDED_LATER: usize = 2;

fn response(headers: &Metadata, call: CallGuard) -> http::Response<ResponseBody> {
    let encodings = call.shared.carries_compressed();
    let mut response = http::Response::new(ResponseBody::new(call));
    let more = 1 + ADDED_LATER;
    crate::headers::from_wire(headers, response.headers_mut(), more, encodings);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A call that was closed without headers is answered by headers alone, as HTTP/2 would.
fn trailers_only(close: CloseStream, encodings: bool) -> http::Response<ResponseBody> {
    let mut response = http::Response::new(ResponseBody::default());
    *response.headers_mut() = status::close_to_trailers(close, 1, encodings);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
