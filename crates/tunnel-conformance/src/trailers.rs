//! Endings of calls that a tonic handler cannot produce.
//!
//! A tonic handler cannot send trailers with a success, and cannot fail after the message of a
//! unary response. Here the handler puts an [`Ending`] into the response's extensions, and this
//! layer around the generated server rewrites the trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{MapOk, TryFutureExt};
use http::{HeaderMap, header};
use http_body::Frame;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

/// How a response ends.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// As the body says. These trailers are added to a success.
    Trailers(HeaderMap),
    /// With this status, which replaces the body's.
    Failure(Status),
}

/// A layer that ends responses with their `Ending`. Everything else passes unchanged.
#[derive(Clone, Debug)]
pub struct WithEndings<S>(pub(crate) S);

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
        Some(ending) => response.map(|body| Body::new(EndingBody { body, ending })),
        None => response,
    }
}

/// A body whose trailers are rewritten. It does not report its end before the trailers were taken,
/// because `Body::new` would drop them.
struct EndingBody {
    body: Body,
    ending: Ending,
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let frame = match frame.into_trailers() {
            Ok(trailers) => Frame::trailers(self.ending.rewrite(trailers)),
            Err(frame) => frame,
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Ending {
    fn rewrite(&self, mut trailers: HeaderMap) -> HeaderMap {
        match self {
            Self::Failure(status) => {
                let response = status.clone().into_http::<Body>();
                let mut trailers = response.into_parts().0.headers;
                trailers.remove(header::CONTENT_TYPE);
                trailers
            }
            Self::Trailers(more) => {
                let status = Status::from_header_map(&trailers);
                if status.is_some_and(|status| status.code() == Code::Ok) {
                    trailers.extend(more.clone());
                }
                trailers
            }
        }
    }
}
