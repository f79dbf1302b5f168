//! A service that passes calls on to a channel.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use crate::transport::detail;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that passes every call on to a channel: a tonic `Channel`, a tunnel, a tower stack. For the fallback
/// of a router or of a builder.
///
/// Requests and responses pass as they come, in both directions at once: metadata, messages, trailers. A call that
/// is cancelled is cancelled in the channel too. If the channel cannot reach its server the call ends with
/// UNAVAILABLE, and the message says so.
#[derive(Clone, Debug)]
pub struct ForwardTo<S> {
    channel: S,
}

impl<S> ForwardTo<S> {
    /// Passes calls on to a channel. Each call takes a clone.
    pub fn new(channel: S) -> Self {
        Self { channel }
    }
}

impl<S, A, B> Service<http::Request<A>> for ForwardTo<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    A: http_body::Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    /// Always ready: each call waits for the channel itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let mut channel = self.channel.clone();
        let request = request.map(Body::new);
        Box::pin(async move {
            let response = match poll_fn(|cx| channel.poll_ready(cx)).await {
                Ok(()) => channel.call(request).await,
                Err(error) => Err(error),
            };
            Ok(match response {
                Ok(response) => response.map(|body| Body::new(Forwarded { body: Some(body) })),
                Err(error) => failed(error.into()).into_http(),
            })
        })
    }
}

/// The body of a response. If it fails it ends with trailers, because a server would reset the stream for an error
/// and lose the status.
struct Forwarded<B> {
    body: Option<B>,
}

impl<B> http_body::Body for Forwarded<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            Ok(frame.unwrap_or_else(|error| {
                // A body is not polled after an error.
                self.body = None;
                let status = Status::from_error(error.into());
                Frame::trailers(crate::status::to_trailers(&status))
            }))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }
}

/// The status of a call that the channel has failed.
fn failed(error: BoxError) -> Status {
    let error = match error.downcast::<Status>() {
        // Of an interceptor, or of a tunnel.
        Ok(status) => return *status,
        Err(error) => error,
    };
    let status = Status::from_error(error);
    match status.code() {
        // tonic's codes for a server that cannot be connected to, and for a broken connection.
        Code::Unavailable | Code::Unknown => Status::unavailable(format!(
            "the server that calls are forwarded to cannot be reached: {}",
            detail(&status)
        )),
        _ => status,
    }
}
