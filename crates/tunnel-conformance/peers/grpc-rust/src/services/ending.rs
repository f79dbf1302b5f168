//! Endings that a tonic handler cannot write by itself: trailers with a success,
//! and headers with the failure of a call that has one response.
//!
//! The handler makes its response with a [`Reply`], which leaves an ending in the
//! extensions. A layer right above the generated server writes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{MapOk, TryFutureExt};
use http::{HeaderMap, header};
use http_body::Frame;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Response, Status};
use tower::Service;

/// What surrounds the messages of a response.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) headers: MetadataMap,
    pub(crate) trailers: Trailers,
}

/// The trailers of a response, which may be set until it ends.
#[derive(Clone, Default)]
pub(crate) struct Trailers(Arc<Mutex<HeaderMap>>);

/// How a response ends.
#[derive(Clone)]
struct Ending {
    trailers: Trailers,
    /// In place of any message.
    failure: Option<Status>,
}

impl Reply {
    /// A response with its messages, which may yet fail.
    pub(crate) fn response<T>(self, messages: T) -> Response<T> {
        self.make(messages, None)
    }

    /// A response without a message. The headers are sent all the same.
    pub(crate) fn failure<T: Default>(self, status: Status) -> Response<T> {
        self.make(T::default(), Some(status))
    }

    fn make<T>(self, messages: T, failure: Option<Status>) -> Response<T> {
        let mut response = Response::new(messages);
        *response.metadata_mut() = self.headers;
        let trailers = self.trailers;
        response
            .extensions_mut()
            .insert(Ending { trailers, failure });
        response
    }
}

impl Trailers {
    /// Sets the trailers.
    pub(crate) fn set(&self, trailers: MetadataMap) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trailers.into_headers();
    }

    fn get(&self) -> HeaderMap {
        let trailers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trailers.clone()
    }
}

/// Ends responses as their handlers asked for; everything else passes unchanged.
#[derive(Clone)]
pub(crate) struct WithEndings<S>(pub(crate) S);

type Respond = fn(http::Response<Body>) -> http::Response<Body>;

impl<S> Service<http::Request<Body>> for WithEndings<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = MapOk<S::Future, Respond>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(apply as Respond)
    }
}

impl<S: NamedService> NamedService for WithEndings<S> {
    const NAME: &'static str = S::NAME;
}

fn apply(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<Ending>() {
        Some(ending) => response.map(|body| {
            let body = ending.failure.is_none().then_some(body);
            Body::new(EndingBody { body, ending })
        }),
        None => response,
    }
}

/// A body with an ending. It never calls itself ended before the trailers were
/// taken: `Body::new` would drop them.
struct EndingBody {
    /// What comes before the ending.
    body: Option<Body>,
    ending: Ending,
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else {
            let failure = self.ending.failure.take();
            return Poll::Ready(failure.map(|status| Ok(self.trailers(headers_of(status)))));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?.into_trailers();
            Ok(frame.map_or_else(|frame| frame, |trailers| self.trailers(trailers)))
        }))
    }
}

impl EndingBody {
    /// The last frame, with what the handler has set as well.
    fn trailers(&self, mut trailers: HeaderMap) -> Frame<Bytes> {
        trailers.extend(self.ending.trailers.get());
        Frame::trailers(trailers)
    }
}

fn headers_of(status: Status) -> HeaderMap {
    let mut headers = status.into_http::<Body>().into_parts().0.headers;
    headers.remove(header::CONTENT_TYPE);
    headers
}
