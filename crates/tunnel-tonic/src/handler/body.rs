//! The request body of a call served through a tunnel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;
use tunnel_core::{Code, Read, StreamError, StreamId};

use crate::buffered_read::BufferedRead;
use crate::message::Gathered;
use crate::shared::Shared;
use crate::slots::Failure;
use crate::status;

/// The messages of a call's caller.
///
/// It may outlive the future that serves the call, so it is told by itself when the call is
/// over: by an error that is never CANCELLED, which tonic would read as a clean end.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Arc<Shared>,
    id: StreamId,
    buffered: BufferedRead,
    done: bool,
}

impl RequestBody {
    /// The body of a stream that was held for it.
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id,
            buffered: BufferedRead::default(),
            done: false,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Gathered {
        let (shared, id) = (&self.shared, self.id);
        self.buffered.next_or(|gatherer| {
            shared.with(|state| {
                let read = gatherer.read(&mut state.recv(id));
                if !matches!(read, Gathered::Pending) {
                    return read;
                }
                // The call was closed: nobody is told, so its reader must learn it here.
                if state.slot(id).is_none_or(|slot| slot.handler_done) {
                    return Gathered::End(Read::Gone);
                }
                state.wait_read(id, cx.waker());
                read
            })
        })
    }

    /// Why the body ended before its caller finished it.
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

/// A failure as a handler's body may show it: not as CANCELLED.
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
            Gathered::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Gathered::Pending => Poll::Pending,
            Gathered::End(Read::HalfClosed) => {
                this.done = true;
                Poll::Ready(None)
            }
            Gathered::End(read) => {
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
