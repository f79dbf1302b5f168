//! The writer of a tunnel: the body of the outer call, pulled by the transport.
//!
//! Each poll encodes one batch of frames into one buffer under one lock. No frame is queued between
//! polls, so the scheduler decides as late as possible.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tunnel_core::frame::MAX_CHUNK_SIZE;
use tunnel_core::frame::framing::FrameWriter;
use tunnel_core::{ConnectionError, EndReason, Report, Side};

use crate::compression::codec::Compressor;
use crate::compression::frames;
use crate::info::NetworkRole;
use crate::shared::{Shared, now};

/// About how many bytes one poll returns: a message of 64 KiB with its envelope. HTTP/2 buffers a
/// batch out of reach of the scheduler, so a larger batch would delay urgent frames.
const BATCH: usize = 72 << 10;

/// The size by which a batch may exceed that, because its last frame is written whole.
const OVERSHOOT: usize = MAX_CHUNK_SIZE + 64;

/// After a batch larger than this the writer yields, so that the transport writes it before the next
/// one is made. Otherwise a burst of large messages would be copied as a whole into new memory.
const LARGE_BATCH: usize = 16 << 10;

/// A smaller batch waits once for the woken tasks, which may add to it.
const SMALL_BATCH: usize = 4 << 10;

/// The half of a tunnel that sends: the body of the outer request or response; from
/// [`Tunnel::new`](crate::Tunnel::new).
///
/// If it is dropped before its end, the transport has gone, and the tunnel is lost. At a server this is
/// the only reliable sign of a dead peer. At a client it also happens when the server has ended the
/// call, so there the tunnel first reads the frames that have arrived.
#[derive(Debug)]
#[must_use = "dropping it ends the tunnel"]
pub struct Outbound {
    shared: Arc<Shared>,
    role: NetworkRole,
    side: Side,
    done: bool,
    /// Whether the current batch has waited.
    waited: bool,
    /// Whether the last batch was large, so that the writer must yield.
    writing: bool,
    /// Compresses the frames, if this end does.
    compressor: Option<Box<Compressor>>,
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
            compressor: None,
        }
    }

    /// Compresses each frame as a message of the outer stream, unless it is small. The headers of this
    /// end must name the encoding ([`put_encodings`](crate::outer::put_encodings)), and the peer must
    /// accept it.
    pub fn compress(&mut self, encoding: Option<CompressionEncoding>) {
        self.compressor = encoding.and_then(Compressor::new).map(Box::new);
    }

    /// Compresses a batch, if this end does.
    fn compressed(&mut self, batch: BytesMut) -> Bytes {
        let Some(compressor) = &mut self.compressor else {
            return batch.freeze();
        };
        let before = batch.len();
        let batch = frames::compress(compressor, batch);
        let saved = before.saturating_sub(batch.len()) as u64;
        if saved > 0 {
            self.shared.with(|state| state.bytes_taken -= saved);
        }
        batch
    }

    /// The end of the body, for the reason of the tunnel's end.
    fn end(&self, reason: &EndReason) -> Option<Result<Frame<Bytes>, Status>> {
        let status = match (self.role, reason) {
            (NetworkRole::Client, EndReason::Error(error)) => {
                return Some(Err(error_status(error)));
            }
            // A request body cannot carry a reason.
            (NetworkRole::Client, _) => return None,
            (NetworkRole::Server, EndReason::Error(error)) => error_status(error),
            (NetworkRole::Server, EndReason::ClosedWith(reason)) => {
                crate::status::tonic_status(reason)
            }
            (NetworkRole::Server, _) => Status::ok(""),
        };
        Some(Ok(Frame::trailers(crate::status::to_trailers(&status))))
    }
}

fn error_status(error: &ConnectionError) -> Status {
    Status::new(
        crate::status::code_from_wire(error.code()),
        Report(error).to_string(),
    )
}

/// The outcome of a poll.
enum Next {
    Batch,
    /// Little data is ready, and more may follow.
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
        // Each batch has its own buffer, so an idle tunnel keeps none, and a batch is not copied while
        // it grows.
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
                Poll::Ready(Some(Ok(Frame::data(this.compressed(buf)))))
            }
            Next::Wait => {
                this.waited = true;
                // Runs after the tasks that are ready.
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
