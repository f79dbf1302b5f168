//! What a tunnel sends: the body of the outer call, pulled by the transport.
//!
//! Each poll writes one batch of frames into one buffer under one lock. Between polls nothing
//! is queued as a frame, so what comes up meanwhile takes its place by the scheduler's rules.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::Status;
use tunnel_core::frame::MAX_CHUNK_SIZE;
use tunnel_core::frame::framing::FrameWriter;
use tunnel_core::{ConnectionError, EndReason, Side};

use crate::shared::{Shared, now};

/// How many bytes one poll yields, about. HTTP/2 buffers what it was given, out of reach of
/// the scheduler, so this is also how long an urgent frame waits behind the rest.
const BATCH: usize = 72 << 10;

/// By how much a batch may exceed that: its last frame is written whole.
const OVERSHOOT: usize = MAX_CHUNK_SIZE + 64;

/// After a batch larger than this the transport gets to write it before the next is made. Pulled
/// all at once, a burst of large messages would lie there in memory that nobody has touched yet.
const LARGE_BATCH: usize = 16 << 10;

/// A batch that would be smaller than this waits once for the tasks that are about to add to it.
const SMALL_BATCH: usize = 4 << 10;

/// Which end of the outer call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkRole {
    /// Dialled: sends the request body, which ends without trailers.
    Client,
    /// Accepted: sends the response body, which ends with a status.
    Server,
}

/// The body that a tunnel's end sends.
///
/// When it is dropped before its end, the transport is gone, and so is the tunnel: on a
/// server that is the only sign of a dead peer that never fails. On a client it is also what
/// happens when a server has answered to the end and wants no more of the request, so there
/// the tunnel's task looks at what has come before it calls the tunnel lost.
#[derive(Debug)]
pub struct Outbound {
    shared: Arc<Shared>,
    role: NetworkRole,
    side: Side,
    done: bool,
    /// Whether the batch at hand has waited.
    waited: bool,
    /// Whether the last batch was a large one, which the transport writes first.
    writing: bool,
}

impl Outbound {
    pub(crate) fn new(shared: Arc<Shared>, role: NetworkRole, side: Side) -> Self {
        Self {
            shared,
            role,
            side,
            done: false,
            waited: false,
            writing: false,
        }
    }

    /// The end of the body for the reason the tunnel ended.
    fn end(&self, reason: &EndReason) -> Option<Result<Frame<Bytes>, Status>> {
        let status = match (self.role, reason) {
            (NetworkRole::Client, EndReason::Error(error)) => {
                return Some(Err(error_status(error)));
            }
            // A request body has no place for a reason.
            (NetworkRole::Client, _) => return None,
            (NetworkRole::Server, EndReason::Error(error)) => error_status(error),
            (NetworkRole::Server, EndReason::ClosedWith(reason)) => {
                crate::status::from_wire(reason)
            }
            (NetworkRole::Server, _) => Status::ok(""),
        };
        Some(Ok(Frame::trailers(crate::status::to_trailers(&status))))
    }
}

fn error_status(error: &ConnectionError) -> Status {
    Status::new(
        crate::status::code_from_wire(error.code()),
        error.to_string(),
    )
}

/// What a poll comes to.
enum Next {
    Batch,
    /// There is little, and more is about to come.
    Wait,
    Nothing,
    End(EndReason),
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut this.writing) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A buffer of its own for each batch: nothing is kept for an idle tunnel, and what is made
        // for the batch at hand need not be copied while it grows.
        let mut buf = BytesMut::new();
        let side = this.side;
        let waited = std::mem::take(&mut this.waited);
        let next = this.shared.with(|state| {
            if state.conn.wants_transmit() {
                let hint = state.conn.transmit_hint();
                if !waited && hint < SMALL_BATCH && state.is_more_coming() {
                    return Next::Wait;
                }
                buf.reserve(hint.min(BATCH + OVERSHOOT));
            }
            let mut writer = FrameWriter::new(side, &mut buf);
            let written = state.conn.transmit(now(), BATCH, &mut writer);
            if written > 0 {
                state.bytes_taken += written as u64;
                return Next::Batch;
            }
            if let Some(reason) = state.conn.end_reason() {
                return Next::End(reason.clone());
            }
            state.wait_outbound(cx.waker());
            Next::Nothing
        });
        match next {
            Next::Batch => {
                this.writing = buf.len() > LARGE_BATCH;
                Poll::Ready(Some(Ok(Frame::data(buf.freeze()))))
            }
            Next::Wait => {
                this.waited = true;
                // Behind those who are ready.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Next::Nothing => Poll::Pending,
            Next::End(reason) => {
                this.done = true;
                Poll::Ready(this.end(&reason))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if !self.done {
            let ask_driver = self.role == NetworkRole::Client;
            self.shared.with(|state| state.lose_outbound(ask_driver));
        }
    }
}
