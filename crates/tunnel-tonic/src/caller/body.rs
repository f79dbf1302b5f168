//! The response body of a call made through a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;
use tunnel_core::Read;

use super::guard::CallGuard;
use crate::buffered_read::BufferedRead;
use crate::message::Gathered;
use crate::status;

/// The body of a response that came through a tunnel: messages, then trailers.
///
/// Dropping it before its end cancels the call at the far end. The default is an empty body.
#[derive(Debug, Default)]
pub struct ResponseBody {
    /// `None` after the end.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    call: CallGuard,
    buffered: BufferedRead,
}

impl ResponseBody {
    pub(crate) fn new(call: CallGuard) -> Self {
        Self {
            open: Some(Open {
                call,
                buffered: BufferedRead::default(),
            }),
        }
    }
}

impl Open {
    fn next(&mut self, cx: &mut Context<'_>) -> Gathered {
        let CallGuard { shared, id, .. } = &self.call;
        self.buffered.next_or(|gatherer| {
            shared.with(|state| {
                let read = gatherer.read(&mut state.recv(*id));
                if matches!(read, Gathered::Pending) {
                    state.wait_read(*id, cx.waker());
                }
                read
            })
        })
    }

    fn end(&mut self, read: Read) -> Result<Frame<Bytes>, Status> {
        let result = match read {
            Read::Closed(close) => Ok(Frame::trailers(status::close_to_trailers(close, 0))),
            Read::Failed(error) => Err(status::from_stream_error(error)),
            _ => Err(self.call.gone()),
        };
        self.call.ended = true;
        result
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(open) = &mut this.open else {
            return Poll::Ready(None);
        };
        match open.next(cx) {
            Gathered::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Gathered::Pending => Poll::Pending,
            Gathered::End(read) => {
                let end = open.end(read);
                this.open = None;
                Poll::Ready(Some(end))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }
}
