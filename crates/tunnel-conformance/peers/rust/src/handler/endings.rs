//! Endings that a tonic handler cannot write by itself.
//!
//! tonic gives a handler no way to send trailers with a success, nor to send
//! headers and fail instead of giving the only response. The handler leaves an
//! [`Ending`] in the response's extensions, and this layer right above the
//! generated server rewrites the body accordingly.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{MapOk, TryFutureExt as _};
use http::{HeaderMap, header};
use http_body::Frame;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

/// How a response ends.
#[derive(Clone)]
pub(super) enum Ending {
    /// As the body says; these are added to the trailers of a success.
    Trailers(HeaderMap),
    /// With this status, and without any message.
    Failure(Status),
}

/// Ends responses as their handlers asked for; everything else passes unchanged.
#[derive(Clone)]
pub(crate) struct WithEndings<S>(pub(super) S);

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
        Some(Ending::Trailers(trailers)) => response.map(|body| {
            Body::new(Ended {
                body,
                trailers: Some(trailers),
            })
        }),
        Some(Ending::Failure(status)) => response.map(|_| Body::new(Failed(Some(status)))),
        None => response,
    }
}

/// A body that adds to its trailers where they are those of a success. It never
/// calls itself ended before they were taken: `Body::new` would drop them.
struct Ended {
    body: Body,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Ended {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let frame = match frame.into_trailers() {
            Ok(trailers) => Frame::trailers(self.complete(trailers)),
            Err(data) => data,
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Ended {
    fn complete(&mut self, mut trailers: HeaderMap) -> HeaderMap {
        let status = Status::from_header_map(&trailers);
        if status.is_some_and(|status| status.code() == Code::Ok) {
            trailers.extend(self.trailers.take().unwrap_or_default());
        }
        trailers
    }
}

/// A body that is nothing but the trailers of a failure.
struct Failed(Option<Status>);

impl http_body::Body for Failed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(
            self.0
                .take()
                .map(|status| Ok(Frame::trailers(trailers(status)))),
        )
    }
}

fn trailers(status: Status) -> HeaderMap {
    // There is no other public way to a status in headers.
    let mut headers = status.into_http::<Body>().into_parts().0.headers;
    headers.remove(header::CONTENT_TYPE);
    headers
}
