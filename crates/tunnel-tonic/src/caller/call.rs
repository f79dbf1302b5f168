//! One call made through a tunnel, from its request to its response headers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Body as _;
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
            Failure::into_status,
        )
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let (id, ended) = (self.id, self.ended);
        let _slot = self.shared.with(|state| {
            if !ended {
                state.conn.cancel(id);
            }
            state.release(id)
        });
    }
}

/// Ends a call because its request body failed. Returns how it had failed before, to be dropped
/// without the lock.
#[must_use = "to be dropped without the lock"]
pub(crate) fn fail_body(state: &mut State, id: StreamId, status: Status) -> Option<Failure> {
    state.conn.cancel(id);
    state.wake_reader(id);
    state
        .slot(id)?
        .failed
        .replace(Failure::Body(Box::new(status)))
}

/// The response of a call through a tunnel: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub struct ResponseFuture {
    stage: Stage,
}

enum Stage {
    /// Not yet polled.
    New(Box<Request>),
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
            stage: Stage::New(Box::new(request)),
        }
    }
}

/// What a first look at a request body found.
struct Gathered {
    data: Vec<Bytes>,
    /// `Some(Ok)`: it has ended.
    end: Option<Result<(), Status>>,
}

/// Polls a request body until it is pending, has ended, or enough is there, so that a call's
/// beginning, message and half-close leave together.
fn gather(body: &mut Body, cx: &mut Context<'_>) -> Gathered {
    let mut data = Vec::new();
    let mut size = 0;
    while size < GATHER {
        // Tokio's budget would have the body pretend to be pending in the middle of a batch.
        let poll = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match pin!(tokio::task::unconstrained(poll)).poll(cx) {
            Poll::Pending => break,
            Poll::Ready(None) => {
                let end = Some(Ok(()));
                return Gathered { data, end };
            }
            Poll::Ready(Some(Err(status))) => {
                let end = Some(Err(status));
                return Gathered { data, end };
            }
            Poll::Ready(Some(Ok(frame))) => {
                size += FRAME_OVERHEAD;
                if let Ok(bytes) = frame.into_data() {
                    size += bytes.len();
                    data.push(bytes);
                }
            }
        }
    }
    Gathered { data, end: None }
}

/// Opens a call with what of its body was there, and sees to the rest of the body.
fn open(
    request: Request,
    permit: Option<OwnedSemaphorePermit>,
    cx: &mut Context<'_>,
) -> Result<CallGuard, Status> {
    let Request {
        handle,
        head,
        mut body,
    } = request;
    if let Some(status) = head.refused {
        return Err(*status);
    }
    let Gathered { mut data, end } = gather(&mut body, cx);
    let finished = match end {
        Some(Err(status)) => return Err(status),
        Some(Ok(())) => true,
        None => false,
    };
    let shared = handle.shared.clone();
    let mut splitter = Splitter::default();
    let id = shared.with(|state| {
        let id = state
            .conn
            .open(now(), &head.method, head.headers)
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
        Ok(id)
    })?;
    let guard = CallGuard {
        shared: shared.clone(),
        id,
        ended: false,
        _permit: permit,
    };
    if !finished {
        tokio::spawn(RequestPump::new(shared, id, body, splitter));
    }
    Ok(guard)
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
        loop {
            match std::mem::replace(&mut this.stage, Stage::Done) {
                Stage::New(request) => {
                    this.stage = match Queue::enter(&request.handle, &request.head) {
                        Ok(place) => Stage::Open(open(*request, place, cx)?),
                        Err(queue) => Stage::Queued(queue, request),
                    };
                }
                Stage::Queued(mut queue, mut request) => match queue.poll(cx) {
                    Poll::Pending => {
                        this.stage = Stage::Queued(queue, request);
                        return Poll::Pending;
                    }
                    Poll::Ready(place) => {
                        let place = Some(place?);
                        queue.shorten_timeout(&mut request.head);
                        this.stage = Stage::Open(open(*request, place, cx)?);
                    }
                },
                Stage::Open(guard) => {
                    let mut guard = Some(guard);
                    let response = poll_headers(&mut guard, cx);
                    if let Some(guard) = guard {
                        this.stage = Stage::Open(guard);
                    }
                    return Poll::Ready(ready!(response));
                }
                Stage::Done => {
                    return Poll::Ready(Err(Status::internal(
                        "the response future was polled after it had resolved",
                    )));
                }
            }
        }
    }
}

/// Looks for response headers, or for the end of a call that has none.
fn poll_headers(
    guard: &mut Option<CallGuard>,
    cx: &mut Context<'_>,
) -> Poll<Result<http::Response<ResponseBody>, Status>> {
    let Some(call) = guard.as_mut() else {
        return Poll::Ready(Err(Status::internal("no call")));
    };
    let id = call.id;
    let (headers, read) = call.shared.with(|state| {
        let mut recv = state.conn.recv(id);
        if let Some(headers) = recv.take_headers() {
            return (Some(headers), Read::Pending);
        }
        let read = recv.read();
        if read == Read::Pending {
            state.wait_read(id, cx.waker());
        }
        (None, read)
    });
    match (headers, read) {
        (Some(headers), _) => {
            let body = guard.take().map(ResponseBody::new).unwrap_or_default();
            Poll::Ready(Ok(response(&headers, body)))
        }
        (None, Read::Pending) => Poll::Pending,
        (None, Read::Closed(close)) => {
            call.ended = true;
            *guard = None;
            Poll::Ready(match status::not_processed(&close) {
                Some(status) => Err(status),
                None => Ok(trailers_only(close)),
            })
        }
        (None, read) => {
            let status = match read {
                Read::Failed(error) => status::from_stream_error(error),
                _ => call.gone(),
            };
            call.ended = true;
            *guard = None;
            Poll::Ready(Err(status))
        }
    }
}

fn response(headers: &Metadata, body: ResponseBody) -> http::Response<ResponseBody> {
    let mut response = http::Response::new(body);
    crate::headers::from_wire(headers, response.headers_mut());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A call that was closed without headers is answered by headers alone, as HTTP/2 would.
fn trailers_only(close: CloseStream) -> http::Response<ResponseBody> {
    let status = status::from_close(close);
    let mut response = http::Response::new(ResponseBody::default());
    *response.headers_mut() = status::to_trailers(&status);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
