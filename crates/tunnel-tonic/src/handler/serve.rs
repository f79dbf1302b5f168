//! The task that serves one call.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::{Code, Metadata, Status as WireStatus, StreamId, WriteError};

use crate::message::{SplitError, Splitter};
use crate::shared::{Shared, State};
use crate::status;

/// How much of a response body is gathered before it is put on the stream, in bytes.
const GATHER: usize = 64 << 10;

/// Serves one call: runs its handler, then moves its response into the stream.
///
/// Ends at once when the call is cancelled, and drops the handler before the handler's
/// request body could be polled again.
pub(crate) struct ServeCall {
    shared: Arc<Shared>,
    id: StreamId,
    stage: Stage,
    /// Whether the call has been polled before, so that it may have been cancelled since.
    polled: bool,
}

enum Stage {
    Handling(BoxFuture<'static, http::Response<Body>>),
    Responding(Box<Response>),
    Done,
}

struct Response {
    /// Response headers that were not put on the stream yet.
    head: Option<Metadata>,
    http_status: http::StatusCode,
    body: Body,
    splitter: Splitter,
}

/// How a response body ended.
enum End {
    Trailers(HeaderMap),
    Nothing,
    Failed(Status),
    Panicked,
}

/// What one look at a response body found.
#[derive(Default)]
struct Gathered {
    data: Vec<Bytes>,
    end: Option<End>,
    pending: bool,
}

fn panicked() -> WireStatus {
    WireStatus::new(Code::Internal, "the handler panicked")
}

impl ServeCall {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: StreamId,
        handler: BoxFuture<'static, http::Response<Body>>,
    ) -> Self {
        Self {
            shared,
            id,
            stage: Stage::Handling(handler),
            polled: false,
        }
    }

    /// Registers for what may wake this task from outside; `false` if the call is over.
    fn is_wanted(&mut self, cx: &mut Context<'_>) -> bool {
        let id = self.id;
        self.shared.with(|state| {
            state.wait_write(id, cx.waker());
            state.slot(id).is_some_and(|slot| slot.failed.is_none())
        })
    }

    /// Runs the handler until it answers.
    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Handling(handler) = &mut self.stage else {
            return Poll::Ready(());
        };
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(response)) => {
                self.stage = self.respond(response);
                Poll::Ready(())
            }
            Err(_) => {
                let id = self.id;
                self.shared.with(|state| state.conn.reset(id, panicked()));
                self.stage = Stage::Done;
                Poll::Ready(())
            }
        }
    }

    /// Begins to move a response; one that is nothing but a status is moved at once.
    fn respond(&self, response: http::Response<Body>) -> Stage {
        let (parts, body) = response.into_parts();
        let head = crate::headers::to_wire(&parts.headers);
        if let Some(status) = status::from_headers(&parts.headers) {
            let id = self.id;
            self.shared.with(|state| close(state, id, head, status));
            return Stage::Done;
        }
        Stage::Responding(Box::new(Response {
            head: Some(head),
            http_status: parts.status,
            body,
            splitter: Splitter::default(),
        }))
    }

    /// Moves the response body on.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Responding(response) = &mut self.stage else {
            return Poll::Ready(());
        };
        let id = self.id;
        loop {
            let gathered = gather(&mut response.body, cx);
            let pending = gathered.pending;
            let moved = self
                .shared
                .with(|state| response.put(state, id, gathered, cx));
            match moved {
                Moved::Over => return Poll::Ready(()),
                Moved::Full => return Poll::Pending,
                Moved::On if pending => return Poll::Pending,
                Moved::On => {}
            }
        }
    }
}

/// What putting data on the stream came to.
enum Moved {
    /// There is room for more.
    On,
    /// There is not; the task will be woken.
    Full,
    /// The call has ended, one way or the other.
    Over,
}

impl Response {
    fn put(
        &mut self,
        state: &mut State,
        id: StreamId,
        gathered: Gathered,
        cx: &Context<'_>,
    ) -> Moved {
        match self.try_put(state, id, gathered) {
            Ok(true) => Moved::Over,
            Ok(false) => {
                state.wait_write(id, cx.waker());
                match state.conn.send(id).is_writable() {
                    Ok(true) => Moved::On,
                    Ok(false) => Moved::Full,
                    Err(_) => Moved::Over,
                }
            }
            Err(SplitError::Gone) => Moved::Over,
            Err(SplitError::Malformed(status)) => {
                let (_, status) = status::to_wire_status(status);
                state.conn.reset(id, status);
                Moved::Over
            }
        }
    }

    /// `true` if the call was closed.
    fn try_put(
        &mut self,
        state: &mut State,
        id: StreamId,
        gathered: Gathered,
    ) -> Result<bool, SplitError> {
        if let Some(head) = self.head.take() {
            match state.conn.send(id).headers(head) {
                Err(error @ WriteError::MetadataSize { .. }) => {
                    let status = Status::resource_exhausted(error.to_string());
                    return Err(SplitError::Malformed(status));
                }
                other => other?,
            }
        }
        for data in gathered.data {
            self.splitter.feed(data, &mut state.conn.send(id))?;
        }
        match gathered.end {
            None => return Ok(false),
            Some(End::Panicked) => state.conn.reset(id, panicked()),
            Some(End::Failed(failure)) => {
                let (trailers, status) = status::to_wire_status(failure);
                self.close_or_reset(state, id, trailers, status);
            }
            Some(End::Nothing) => {
                let status = status::from_http_status(self.http_status);
                self.close_or_reset(state, id, Metadata::new(), status);
            }
            Some(End::Trailers(trailers)) => {
                let status = status::from_headers(&trailers)
                    .unwrap_or_else(|| status::from_http_status(self.http_status));
                let trailers = crate::headers::to_wire(&trailers);
                self.close_or_reset(state, id, trailers, status);
            }
        }
        Ok(true)
    }

    /// Closes the call in order, or at once if the body ended inside a message.
    fn close_or_reset(
        &self,
        state: &mut State,
        id: StreamId,
        trailers: Metadata,
        status: WireStatus,
    ) {
        if self.splitter.is_whole() {
            close(state, id, trailers, status);
        } else if status.code == Code::Ok {
            let cut = WireStatus::new(Code::Internal, "the response ended inside a message");
            state.conn.reset(id, cut);
        } else {
            state.conn.reset(id, status);
        }
    }
}

fn close(state: &mut State, id: StreamId, trailers: Metadata, status: WireStatus) {
    if let Err(error) = state.conn.send(id).close(trailers, status)
        && error != WriteError::Gone
    {
        debug_assert!(false, "a call is closed once, between messages: {error}");
    }
}

/// Polls a response body until it is pending, has ended, or enough is there.
fn gather(body: &mut Body, cx: &mut Context<'_>) -> Gathered {
    let mut gathered = Gathered::default();
    let mut size = 0;
    while size < GATHER {
        let poll = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *body).poll_frame(cx)));
        gathered.end = match poll {
            Ok(Poll::Pending) => {
                gathered.pending = true;
                break;
            }
            Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_data() {
                Ok(data) => {
                    size += data.len();
                    gathered.data.push(data);
                    continue;
                }
                Err(other) => match other.into_trailers() {
                    Ok(trailers) => Some(End::Trailers(trailers)),
                    Err(_) => continue,
                },
            },
            Ok(Poll::Ready(Some(Err(status)))) => Some(End::Failed(status)),
            Ok(Poll::Ready(None)) => Some(End::Nothing),
            Err(_) => Some(End::Panicked),
        };
        break;
    }
    gathered
}

impl Future for ServeCall {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.polled && !this.is_wanted(cx) {
            this.stage = Stage::Done;
            return Poll::Ready(());
        }
        let first = !this.polled;
        this.polled = true;
        if this.poll_handler(cx).is_pending() || this.poll_response(cx).is_pending() {
            // Nothing was registered before the first poll; the call may have ended since.
            if first && !this.is_wanted(cx) {
                this.stage = Stage::Done;
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
        this.stage = Stage::Done;
        Poll::Ready(())
    }
}

impl Drop for ServeCall {
    fn drop(&mut self) {
        let unfinished = !matches!(self.stage, Stage::Done);
        let id = self.id;
        // Runs the handler's drop, outside the lock.
        self.stage = Stage::Done;
        self.shared.with(|state| {
            if unfinished {
                let status = WireStatus::new(Code::Unavailable, "the server is shutting down");
                state.conn.reset(id, status);
            }
            state.release(id);
        });
    }
}
