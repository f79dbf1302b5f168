//! One call made through a tunnel, from its request to its response headers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http_body::Body as _;
use smallvec::SmallVec;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::{CloseStream, Metadata, Read, StreamId};

use super::pump::RequestPump;
use super::queue::Queue;
use super::{CallHead, Handle, ResponseBody};
use crate::message::{SplitError, Splitter};
use crate::shared::{Failure, Shared, State, now};
use crate::status;

/// How much of a request body is gathered before its call is opened, in bytes.
const GATHER: usize = 64 << 10;

/// What a data frame of a body counts beyond its bytes, so that empty ones come to an end too.
const FRAME_OVERHEAD: usize = 16;

/// A call that exists in the tunnel. Dropping it before its end cancels it at the far end.
#[derive(Debug)]
pub(crate) struct CallGuard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: StreamId,
    /// Whether the end was read: nothing to cancel.
    pub(crate) ended: bool,
    /// The call's place among those that may be in flight, where calls wait for one.
    _permit: Option<OwnedSemaphorePermit>,
}

impl CallGuard {
    /// The end of a call that has gone before its end was read: a failure of its own request
    /// body, or nothing anybody knows of.
    pub(crate) fn gone(&self) -> Status {
        let failed = self
            .shared
            .with(|state| state.slot(self.id).and_then(|slot| slot.failed.take()));
        failed.map_or_else(
            || Status::unknown("the call has ended"),
            |failed| failed.into_status(),
        )
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let id = self.id;
        if self.ended {
            self.shared.release(id);
            return;
        }
        let _slot = self.shared.with(|state| {
            state.conn.cancel(id);
            state.release(id)
        });
    }
}

/// Ends a call because its request body failed. Returns how it had failed before, to be dropped
/// without the lock.
#[must_use = "to be dropped without the lock"]
pub(crate) fn fail_body(state: &mut State, id: StreamId, status: Status) -> Option<Box<Failure>> {
    state.conn.cancel(id);
    state.wake_reader(id);
    state
        .slot(id)?
        .failed
        .replace(Box::new(Failure::Body(status)))
}

/// The response of a call through a tunnel: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub struct ResponseFuture {
    stage: Stage,
}

enum Stage {
    /// Not yet polled.
    New(Request),
    /// Waits for a place among the calls in flight.
    Queued(Queue, Box<Request>),
    /// Waits for response headers.
    Open(CallGuard),
    /// Has resolved.
    Done,
}

/// What a call is made of.
pub(super) struct Request {
    /// Keeps the tunnel open until the call is.
    pub(super) handle: Arc<Handle>,
    pub(super) head: CallHead,
    pub(super) body: Body,
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stage = match &self.stage {
            Stage::New(_) => "new",
            Stage::Queued(..) => "queued",
            Stage::Open(_) => "open",
            Stage::Done => "done",
        };
        f.debug_struct("ResponseFuture")
            .field("stage", &stage)
            .finish()
    }
}

impl ResponseFuture {
    pub(super) fn new(request: Request) -> Self {
        Self {
            stage: Stage::New(request),
        }
    }
}

/// What a first look at a request body found.
struct Gathered {
    data: Pieces,
    /// `Some(Ok)`: it has ended. `Pending`: it had nothing more to give.
    end: Poll<Option<Result<(), Status>>>,
}

/// The data frames of a first look: one for a unary call.
type Pieces = SmallVec<[Bytes; 2]>;

/// Polls a request body until it is pending, has ended, or enough is there, so that a call's
/// beginning, message and half-close leave together.
fn gather(body: &mut Body, cx: &mut Context<'_>) -> Gathered {
    let mut data = Pieces::new();
    // Tokio's budget would have the body pretend to be pending in the middle of a batch.
    let end = std::future::poll_fn(|cx| poll_body(body, &mut data, cx));
    let end = pin!(tokio::task::unconstrained(end)).poll(cx);
    Gathered { data, end }
}

/// Polls a request body: `Pending` as it is, and `None` when enough is there.
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
                if let Ok(bytes) = frame.into_data() {
                    size += bytes.len();
                    data.push(bytes);
                }
            }
        }
    }
    Poll::Ready(None)
}

/// Opens a call with what of its body was there, and sees to the rest of the body. Looks for the
/// response under the same lock, to be woken for it.
fn open(
    request: Request,
    permit: Option<OwnedSemaphorePermit>,
    cx: &mut Context<'_>,
) -> Result<(CallGuard, Found), Status> {
    let Request {
        handle,
        head,
        mut body,
    } = request;
    if let Some(status) = head.refused {
        return Err(*status);
    }
    let Gathered { mut data, end } = gather(&mut body, cx);
    let pending = end.is_pending();
    let finished = match end {
        Poll::Ready(Some(Err(status))) => return Err(status),
        Poll::Ready(Some(Ok(()))) => true,
        Poll::Ready(None) | Poll::Pending => false,
    };
    let shared = handle.shared.clone();
    let mut splitter = Splitter::default();
    let method = head.path.as_ref().map_or("", PathAndQuery::path);
    let now = now();
    let (id, found) = shared.with(|state| {
        let id = state
            .conn
            .open(now, method, head.headers)
            .map_err(status::from_open_error)?;
        let fed = data.iter_mut().try_for_each(|bytes| {
            let bytes = std::mem::take(bytes);
            splitter.feed(bytes, &mut state.conn.send(id))
        });
        let fed = fed.and_then(|()| match finished {
            true => finish(state, id, &splitter),
            false => Ok(()),
        });
        if let Err(SplitError::Malformed(status)) = fed {
            state.conn.cancel(id);
            return Err(status);
        }
        state.hold(id, if finished { 1 } else { 2 });
        Ok((id, look(state, id, cx)))
    })?;
    let guard = CallGuard {
        shared,
        id,
        ended: false,
        _permit: permit,
    };
    if !finished {
        let pump = RequestPump::new(guard.shared.clone(), id, body, splitter);
        match pending {
            true => pump.park(),
            false => pump.spawn(),
        }
    }
    Ok((guard, found))
}

/// Half-closes a call whose request body has ended.
pub(crate) fn finish(
    state: &mut State,
    id: StreamId,
    splitter: &Splitter,
) -> Result<(), SplitError> {
    if !splitter.is_whole() {
        return Err(SplitError::Malformed(Status::internal(
            "the request body ended inside a message",
        )));
    }
    Ok(state.conn.send(id).finish()?)
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<ResponseBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (guard, found) = loop {
            match std::mem::replace(&mut this.stage, Stage::Done) {
                Stage::New(request) => match Queue::enter(&request.handle, &request.head) {
                    Ok(place) => break open(request, place, cx)?,
                    Err(queue) => this.stage = Stage::Queued(queue, Box::new(request)),
                },
                Stage::Queued(mut queue, mut request) => {
                    let Poll::Ready(place) = queue.poll(cx) else {
                        this.stage = Stage::Queued(queue, request);
                        return Poll::Pending;
                    };
                    let place = Some(place?);
                    queue.shorten_timeout(&mut request.head);
                    break open(*request, place, cx)?;
                }
                Stage::Open(guard) => {
                    let found = guard.shared.with(|state| look(state, guard.id, cx));
                    break (guard, found);
                }
                Stage::Done => {
                    return Poll::Ready(Err(Status::internal(
                        "the response future was polled after it had resolved",
                    )));
                }
            }
        };
        match respond(guard, found) {
            Ok(response) => Poll::Ready(response),
            Err(guard) => {
                this.stage = Stage::Open(guard);
                Poll::Pending
            }
        }
    }
}

/// What a look for a response found.
enum Found {
    Headers(Metadata),
    /// No headers: nothing now, or the end of a call that has none.
    None(Read),
}

/// Looks for response headers, or for the end of a call that has none. Registers for them.
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

/// Makes a response of what was found; returns the call where nothing was.
fn respond(
    mut call: CallGuard,
    found: Found,
) -> Result<Result<http::Response<ResponseBody>, Status>, CallGuard> {
    let read = match found {
        Found::Headers(headers) => return Ok(Ok(response(&headers, ResponseBody::new(call)))),
        Found::None(Read::Pending) => return Err(call),
        Found::None(read) => read,
    };
    let response = match read {
        Read::Closed(close) => match status::not_processed(&close) {
            Some(status) => Err(status),
            None => Ok(trailers_only(close)),
        },
        Read::Failed(error) => Err(status::from_stream_error(error)),
        _ => Err(call.gone()),
    };
    call.ended = true;
    Ok(response)
}

/// How many entries tonic adds to the headers of a unary response: those of its trailers.
const ADDED_LATER: usize = 2;

fn response(headers: &Metadata, body: ResponseBody) -> http::Response<ResponseBody> {
    let mut response = http::Response::new(body);
    crate::headers::from_wire(headers, response.headers_mut(), 1 + ADDED_LATER);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A call that was closed without headers is answered by headers alone, as HTTP/2 would.
fn trailers_only(close: CloseStream) -> http::Response<ResponseBody> {
    let mut response = http::Response::new(ResponseBody::default());
    *response.headers_mut() = status::close_to_trailers(close, 1);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
