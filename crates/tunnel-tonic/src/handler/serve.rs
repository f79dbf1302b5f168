//! The future that serves one call, usually in a task of its own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Body as _;
use smallvec::SmallVec;
use tonic::Status;
use tonic::body::Body;
use tunnel_core::{Code, Metadata, Status as WireStatus, StreamId, WriteError};

use crate::compression::edge::{MessagesOf, decompressed, encoding_of};
use crate::message::{BodyError, BodyWriter};
use crate::shared::Shared;
use crate::slots::Slot;
use crate::state::State;
use crate::status::{self, NotProcessed};
use crate::telemetry::CallTelemetry;

/// How much of a response body is gathered before it is put on the stream, in bytes.
const GATHER: usize = 64 << 10;

/// The cost of a data frame in addition to its bytes, so that empty frames are limited too.
const FRAME_OVERHEAD: usize = 16;

/// How often a response body is gathered before the task yields.
const GATHERS_PER_TURN: usize = 16;

/// Serves one call: runs its handler, then moves its response into the stream.
///
/// Ends at once when the call is cancelled, and drops the handler before the handler's
/// request body could be polled again.
pub(crate) struct ServeCall {
    shared: Arc<Shared>,
    id: StreamId,
    stage: ServeStage,
    /// Whether the call carries a deadline.
    has_deadline: bool,
    /// Whether the call was polled before.
    polled: bool,
    /// Whether the call's slot was released.
    left: bool,
    telemetry: CallTelemetry,
}

enum ServeStage {
    Handling(BoxFuture<'static, http::Response<Body>>),
    Responding(Response),
    Done,
}

struct Response {
    /// Response headers that were not sent yet.
    head: Option<Metadata>,
    body: Body,
    writer: BodyWriter,
    /// The code that the call was closed with.
    code: Option<Code>,
}

/// The state of a call in the tunnel.
enum Look {
    /// The call has ended; the handler is not needed any more.
    Over,
    /// The call is open, but takes no more data now. The task will be woken.
    Full,
    /// The call is open and takes data.
    Writable,
}

/// The end of a response, as frames carry it.
struct End {
    trailers: Metadata,
    status: WireStatus,
}

/// Data from a response body.
#[derive(Default)]
struct Gathered {
    data: SmallVec<[Bytes; 2]>,
    end: Option<End>,
    pending: bool,
}

fn panicked() -> WireStatus {
    WireStatus::new(Code::Internal, "the handler panicked")
}

/// The status of a response that ended without one.
fn without_status() -> WireStatus {
    status::from_http_status(http::StatusCode::OK)
}

impl ServeCall {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: StreamId,
        handler: BoxFuture<'static, http::Response<Body>>,
        has_deadline: bool,
        telemetry: CallTelemetry,
    ) -> Self {
        Self {
            shared,
            id,
            stage: ServeStage::Handling(handler),
            has_deadline,
            polled: false,
            left: false,
            telemetry,
        }
    }

    /// Returns the state of the call in the tunnel, and registers this task's waker.
    fn look(&self, cx: &Context<'_>) -> Look {
        let id = self.id;
        self.shared.with(|state| {
            state.wait_write(id, cx.waker());
            if state.slot(id).is_none_or(|slot| slot.failed.is_some()) {
                return Look::Over;
            }
            writable(state, id)
        })
    }

    /// Whether the call has ended in the tunnel; registers this task's waker. Does not ask whether the
    /// stream is writable, which would withdraw a pending request for that event.
    fn is_over(&self, cx: &Context<'_>) -> bool {
        let id = self.id;
        self.shared.with(|state| {
            state.wait_write(id, cx.waker());
            state.slot(id).is_none_or(|slot| slot.failed.is_some())
        })
    }

    /// Does the next step. All user code runs in here.
    fn work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let ServeStage::Handling(handler) = &mut self.stage {
            let Poll::Ready(response) = handler.as_mut().poll(cx) else {
                return Poll::Pending;
            };
            // Dropping the handler may panic, so it is dropped before the response begins.
            self.stage = ServeStage::Done;
            self.stage = self.respond(response);
        }
        self.poll_response(cx)
    }

    /// Begins a response. A response that is only a status is finished at once.
    fn respond(&mut self, response: http::Response<Body>) -> ServeStage {
        let (parts, body) = response.into_parts();
        let (mut head, status) = status::split_headers(&parts.headers);
        let mut status = match status {
            None if parts.status == http::StatusCode::OK => match self.decompressed(&head, body) {
                Ok(body) => {
                    return ServeStage::Responding(Response {
                        head: Some(head),
                        body,
                        writer: BodyWriter::new(MessagesOf::Server),
                        code: None,
                    });
                }
                Err(status) => status::to_wire(&status),
            },
            None => status::from_http_status(parts.status),
            Some(status) => status,
        };
        if self.has_deadline {
            status::own_deadline(&mut status);
        }
        if let Some(not_processed) = parts.extensions.get::<NotProcessed>() {
            not_processed.mark(&mut head);
        }
        self.left = true;
        let code = status.code;
        let _slot = self.shared.with(|state| {
            close(state, self.id, head, status);
            state.leave(self.id)
        });
        self.telemetry.finish(&self.shared.telemetry, code);
        ServeStage::Done
    }

    /// The messages of a response, decompressed for a caller that does not carry them as they are.
    fn decompressed(&self, head: &Metadata, body: Body) -> Result<Body, Status> {
        if self.shared.carries_compressed() {
            return Ok(body);
        }
        let limit = self.shared.max_message_size();
        decompressed(body, encoding_of(head), MessagesOf::Server, limit)
    }

    /// Moves the response body on.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ServeStage::Responding(response) = &mut self.stage else {
            return Poll::Ready(());
        };
        let id = self.id;
        for _ in 0..GATHERS_PER_TURN {
            let mut gathered = gather(&mut response.body, cx);
            if self.has_deadline
                && let Some(end) = &mut gathered.end
            {
                status::own_deadline(&mut end.status);
            }
            let (look, slot) = self.shared.with(|state| {
                let look = response.put(state, id, &mut gathered, cx);
                // If the call is over, its slot is released under the same lock.
                let over = matches!(look, Look::Over);
                (look, over.then(|| state.leave(id)))
            });
            let slot = slot.flatten();
            match look {
                Look::Over => {
                    self.left = true;
                    let cancelled = || slot.as_ref().map_or(Code::Cancelled, Slot::code);
                    let code = response.code.unwrap_or_else(cancelled);
                    self.telemetry.finish(&self.shared.telemetry, code);
                    return Poll::Ready(());
                }
                Look::Full => return Poll::Pending,
                Look::Writable if gathered.pending => return Poll::Pending,
                Look::Writable => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Drops the handler, which may panic. The call has ended by then.
    fn drop_handler(&mut self) {
        if !matches!(self.stage, ServeStage::Done) {
            let _ = catch_unwind(AssertUnwindSafe(|| self.stage = ServeStage::Done));
        }
    }
}

fn writable(state: &mut State, id: StreamId) -> Look {
    match state.conn.send_stream(id).is_writable() {
        Ok(true) => Look::Writable,
        Ok(false) => Look::Full,
        Err(_) => Look::Over,
    }
}

impl Response {
    /// Writes the gathered data to the stream.
    fn put(
        &mut self,
        state: &mut State,
        id: StreamId,
        gathered: &mut Gathered,
        cx: &Context<'_>,
    ) -> Look {
        match self.try_put(state, id, gathered) {
            Ok(true) => Look::Over,
            Ok(false) => {
                state.wait_write(id, cx.waker());
                writable(state, id)
            }
            Err(BodyError::Gone) => Look::Over,
            Err(BodyError::Malformed(status)) => {
                let (_, status) = status::to_wire_status(&status);
                self.code = Some(status.code);
                state.conn.reset(id, status);
                Look::Over
            }
        }
    }

    /// `true` if the call was closed.
    fn try_put(
        &mut self,
        state: &mut State,
        id: StreamId,
        gathered: &mut Gathered,
    ) -> Result<bool, BodyError> {
        if let Some(head) = self.head.take() {
            let head = state.for_peer(head);
            match state.conn.send_stream(id).headers(head) {
                Err(error @ WriteError::MetadataSize { .. }) => {
                    let status = Status::resource_exhausted(error.to_string());
                    return Err(BodyError::Malformed(status));
                }
                other => other?,
            }
        }
        for data in &mut gathered.data {
            let data = std::mem::take(data);
            self.writer.write(data, &mut state.conn.send_stream(id))?;
        }
        let Some(End { trailers, status }) = gathered.end.take() else {
            return Ok(false);
        };
        self.code = Some(status.code);
        // A body that ended inside a message ends the call at once.
        if self.writer.is_whole() {
            close(state, id, trailers, status);
        } else if status.code == Code::Ok {
            self.code = Some(Code::Internal);
            let cut = WireStatus::new(Code::Internal, "the response ended inside a message");
            state.conn.reset(id, cut);
        } else {
            state.conn.reset(id, status);
        }
        Ok(true)
    }
}

fn close(state: &mut State, id: StreamId, trailers: Metadata, status: WireStatus) {
    let trailers = state.for_peer(trailers);
    if let Err(error) = state.conn.send_stream(id).close(trailers, status)
        && error != WriteError::Gone
    {
        debug_assert!(false, "a call is closed once, between messages: {error}");
    }
}

/// Polls a response body until it is pending, has ended, or has enough data.
fn gather(body: &mut Body, cx: &mut Context<'_>) -> Gathered {
    let mut gathered = Gathered::default();
    let mut size = 0;
    while size < GATHER {
        let frame = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => {
                gathered.pending = true;
                break;
            }
            Poll::Ready(None) => {
                gathered.end = Some(End {
                    trailers: Metadata::new(),
                    status: without_status(),
                });
                break;
            }
            Poll::Ready(Some(Err(failure))) => {
                let (trailers, status) = status::to_wire_status(&failure);
                gathered.end = Some(End { trailers, status });
                break;
            }
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        size += FRAME_OVERHEAD;
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                size += data.len();
                gathered.data.push(data);
            }
            Err(other) => {
                if let Ok(trailers) = other.into_trailers() {
                    gathered.end = Some(end_of(&trailers));
                    break;
                }
            }
        }
    }
    gathered
}

/// The end of a response, from its trailers.
fn end_of(trailers: &http::HeaderMap) -> End {
    let (metadata, status) = status::split_headers(trailers);
    End {
        trailers: metadata,
        status: status.unwrap_or_else(without_status),
    }
}

impl Future for ServeCall {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let span = this.telemetry.span().clone();
        let _entered = span.enter();
        let first = !std::mem::replace(&mut this.polled, true);
        if !first {
            match this.look(cx) {
                Look::Over => {
                    this.drop_handler();
                    return Poll::Ready(());
                }
                Look::Full => return Poll::Pending,
                Look::Writable => {}
            }
        }
        match catch_unwind(AssertUnwindSafe(|| this.work(cx))) {
            Ok(Poll::Ready(())) => {}
            // Nothing was registered before the first poll; the call may have ended since.
            Ok(Poll::Pending) if first && this.is_over(cx) => {}
            Ok(Poll::Pending) => return Poll::Pending,
            Err(_) => {
                let id = this.id;
                this.shared.with(|state| state.conn.reset(id, panicked()));
                this.telemetry
                    .finish(&this.shared.telemetry, Code::Internal);
            }
        }
        this.drop_handler();
        Poll::Ready(())
    }
}

/// Polls a call once, and gives it a task if it has not ended. Returns whether it has ended.
///
/// No wake-up is lost, because a new task is polled.
pub(crate) fn poll_once(mut call: ServeCall) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let answered = Pin::new(&mut call).poll(&mut cx).is_ready();
    if !answered {
        tokio::spawn(call);
    }
    answered
}

impl Drop for ServeCall {
    fn drop(&mut self) {
        // A call is unfinished here only when the runtime shuts down.
        let unfinished = !matches!(self.stage, ServeStage::Done);
        // Outside the lock.
        self.drop_handler();
        if self.left {
            return;
        }
        let id = self.id;
        let slot = self.shared.with(|state| {
            if unfinished {
                let status = WireStatus::new(Code::Unavailable, "the server is shutting down");
                state.conn.reset(id, status);
            }
            state.leave(id)
        });
        let code = match (unfinished, &slot) {
            (true, _) => Code::Unavailable,
            (false, Some(slot)) => slot.code(),
            (false, None) => Code::Cancelled,
        };
        self.telemetry.finish(&self.shared.telemetry, code);
    }
}
