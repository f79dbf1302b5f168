//! The request body of a call served through a tunnel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;
use tunnel_core::{Code, Read, StreamError, StreamId};

use crate::message::{BodyReader, Piece};
use crate::shared::Shared;
use crate::slots::Failure;
use crate::status;

/// The body of a request: the messages of the call's caller.
///
/// It may outlive the future that serves the call. When the call is over it fails, but never with
/// CANCELLED, which tonic would take for a clean end.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Arc<Shared>,
    id: StreamId,
    reader: BodyReader,
    done: bool,
}

impl RequestBody {
    /// The body of a stream whose slot is held until the body is dropped.
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id,
            reader: BodyReader::default(),
            done: false,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Piece {
        if let Some(ready) = self.reader.next_ready() {
            return ready;
        }
        let id = self.id;
        self.shared.with(|state| {
            let piece = self.reader.read(&mut state.recv(id));
            if !matches!(piece, Piece::Pending) {
                return piece;
            }
            // No event reports that the call was closed, so the reader must look.
            if state.slot(id).is_none_or(|slot| slot.handler_done) {
                return Piece::End(Read::Gone);
            }
            state.wait_read(id, cx.waker());
            piece
        })
    }

    /// The reason why the body ended before the caller had finished it.
    fn failure(&self, read: Read) -> Status {
        let id = self.id;
        let error = match read {
            Read::Failed(error) => Some(error),
            _ => self
                .shared
                .with(|state| match state.slot(id)?.failed.as_deref() {
                    Some(Failure::Stream(error)) => Some(error.clone()),
                    _ => None,
                }),
        };
        error.map_or_else(|| Status::aborted("the call has ended"), for_handler)
    }
}

/// The status of a failed body: ABORTED instead of CANCELLED.
fn for_handler(error: StreamError) -> Status {
    let code = match error.code {
        Code::Cancelled => tonic::Code::Aborted,
        code => status::code_from_wire(code),
    };
    let mut status = Status::new(code, error.message.clone());
    status.set_source(Arc::new(error));
    status
}

impl Body for RequestBody {
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
        match this.next(cx) {
            Piece::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Piece::Pending => Poll::Pending,
            Piece::End(Read::HalfClosed) => {
                this.done = true;
                Poll::Ready(None)
            }
            Piece::End(read) => {
                this.done = true;
                Poll::Ready(Some(Err(this.failure(read))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.shared.release(self.id);
    }
}
