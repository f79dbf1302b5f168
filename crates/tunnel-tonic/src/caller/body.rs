//! The response body of a call made through a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;
use tunnel_core::Read;

use super::guard::CallGuard;
use crate::message::{BodyReader, Piece};
use crate::status;

/// The body of a response through a tunnel: messages, then trailers.
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
    reader: BodyReader,
}

impl ResponseBody {
    pub(crate) fn new(call: CallGuard) -> Self {
        Self {
            open: Some(Open {
                call,
                reader: BodyReader::default(),
            }),
        }
    }
}

impl Open {
    fn next(&mut self, cx: &mut Context<'_>) -> Piece {
        if let Some(ready) = self.reader.next_ready() {
            return ready;
        }
        let CallGuard { shared, id, .. } = &self.call;
        shared.with(|state| {
            let piece = self.reader.read(&mut state.recv(*id));
            if matches!(piece, Piece::Pending) {
                state.wait_read(*id, cx.waker());
            }
            piece
        })
    }

    fn end(&mut self, read: Read) -> Result<Frame<Bytes>, Status> {
        let (code, result) = match read {
            Read::Closed(close) => {
                let code = close.status.code;
                let encodings = self.call.shared.carries_compressed();
                let trailers = status::close_to_trailers(close, 0, encodings);
                (code, Ok(Frame::trailers(trailers)))
            }
            Read::Failed(error) => (error.code, Err(status::from_stream_error(error))),
            _ => {
                let status = self.call.gone();
                (status::code_to_wire(status.code()), Err(status))
            }
        };
        self.call.end(code);
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
            Piece::Data(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Piece::Pending => Poll::Pending,
            Piece::End(read) => {
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
