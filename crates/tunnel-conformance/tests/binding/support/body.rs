//! Misbehaving HTTP bodies, and bodies that record how they are used.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// One step of a body.
pub(crate) type Piece = Result<Frame<Bytes>, Status>;

/// A body made of a stream of its frames. Polling it after its end or its error panics.
pub(crate) struct Pieces {
    pieces: BoxStream<'static, Piece>,
    over: bool,
}

impl Pieces {
    pub(crate) fn new(pieces: impl Stream<Item = Piece> + Send + 'static) -> Self {
        Self {
            pieces: pieces.boxed(),
            over: false,
        }
    }

    /// Yields these frames and then the end.
    pub(crate) fn all(pieces: Vec<Piece>) -> Body {
        Body::new(Self::new(futures::stream::iter(pieces)))
    }

    /// Yields these frames and then stays pending.
    pub(crate) fn then_pending(pieces: Vec<Piece>) -> Body {
        let pending = futures::stream::pending();
        Body::new(Self::new(futures::stream::iter(pieces).chain(pending)))
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        assert!(!self.over, "polled after its end");
        let next = self.pieces.poll_next_unpin(cx);
        self.over = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}

pub(crate) fn data(bytes: impl Into<Bytes>) -> Piece {
    Ok(Frame::data(bytes.into()))
}

/// Trailers with only a status.
pub(crate) fn status(code: &'static str) -> Piece {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().expect("legal"));
    Ok(Frame::trailers(trailers))
}

/// A message as bodies carry it: flag, length, payload.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads a body to its end. Returns its bytes and its trailers or error.
pub(crate) async fn read_all<B>(body: B) -> (Vec<u8>, Result<Option<HeaderMap>, B::Error>)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut body = body;
    let mut bytes = Vec::new();
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return (bytes, Ok(None)),
            Some(Err(error)) => return (bytes, Err(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => return (bytes, Ok(frame.into_trailers().ok())),
            },
        }
    }
}

/// What a [`Watched`] body has yielded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) data: Arc<AtomicUsize>,
    pub(crate) empty: Arc<AtomicUsize>,
}

impl Seen {
    /// Wraps a body to record what it yields.
    pub(crate) fn watch(&self, body: Body) -> Body {
        // `Body::new` would drop the trailers of a body that reports its end too early.
        Body::new(Watched {
            body,
            seen: self.clone(),
        })
    }
}

struct Watched {
    body: Body,
    seen: Seen,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let next = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(data) = frame.data_ref()
        {
            self.seen.data.fetch_add(1, Ordering::Relaxed);
            let empty = usize::from(data.is_empty());
            self.seen.empty.fetch_add(empty, Ordering::Relaxed);
        }
        next
    }
}
