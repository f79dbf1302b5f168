//! A service that passes calls on to a channel.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, select};
use http_body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tonic::body::Body;
use tonic::{Code, Status, TimeoutExpired};
use tower_service::Service;

use crate::transport::{detail, sources};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service that passes every call on to a channel: a tonic `Channel`, a tunnel, a tower stack. For the fallback
/// of a router or of a builder.
///
/// Requests and responses pass as they come, in both directions at once: metadata, messages, trailers. A call that
/// is cancelled is cancelled in the channel too. If the channel cannot reach its server the call ends with
/// UNAVAILABLE, and the message says so. A deadline that the channel has enforced is DEADLINE_EXCEEDED, although tonic says
/// CANCELLED.
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
        let (cut, is_cut) = oneshot::channel();
        let (begun, upload) = watch::channel(false);
        let request = request.map(|body| {
            Body::new(Upload {
                body: Box::pin(body),
                is_cut: Some(is_cut),
                begun,
            })
        });
        let response = Box::pin(async move {
            let response = match poll_fn(|cx| channel.poll_ready(cx)).await {
                Ok(()) => channel.call(request).await,
                Err(error) => Err(error),
            };
            Ok(match response {
                Ok(response) => response.map(|body| Body::new(Forwarded { body: Some(body) })),
                Err(error) => failed(error.into()).into_http(),
            })
        });
        Box::pin(Call {
            response: Some(response),
            upload,
            cut: Some(cut),
        })
    }
}

type Response = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// How long a call that was dropped waits for its upload to fail.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// A call before its response.
///
/// If it is dropped during the upload, the upload fails first and the call ends after it. In the other order hyper
/// would reset the stream with CANCEL, which tonic's server reads as the clean end of an upload. A channel that flow
/// control holds up does not read the upload, so that it cannot fail. Its server does not read either, and sees no
/// end: then the call ends without it.
struct Call {
    response: Option<Response>,
    /// True once the channel has begun to read the upload, closed at its end.
    upload: watch::Receiver<bool>,
    /// Tells the upload that the call was dropped.
    cut: Option<oneshot::Sender<()>>,
}

impl Future for Call {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = self.response.as_mut().expect("not polled after its end");
        let response = ready!(response.poll_unpin(cx));
        self.response = None;
        Poll::Ready(response)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(response) = self.response.take() else {
            return;
        };
        if let Some(cut) = self.cut.take() {
            let _ = cut.send(());
        }
        let mut upload = self.upload.clone();
        let begun = *upload.borrow_and_update() && upload.has_changed().is_ok();
        if let (true, Ok(runtime)) = (begun, Handle::try_current()) {
            runtime.spawn(async move {
                let over = select(response, upload.changed().boxed());
                let _ = tokio::time::timeout(CUT_GRACE, over).await;
            });
        }
    }
}

/// The request body of a call. It fails when the call is dropped before its response.
struct Upload<A> {
    body: Pin<Box<A>>,
    /// Answers when the call is dropped. None once there is a response.
    is_cut: Option<oneshot::Receiver<()>>,
    begun: watch::Sender<bool>,
}

impl<A> http_body::Body for Upload<A>
where
    A: http_body::Body<Data = Bytes>,
    A::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.begun
            .send_if_modified(|begun| !mem::replace(begun, true));
        match self.is_cut.as_mut().map(|cut| cut.poll_unpin(cx)) {
            Some(Poll::Ready(Ok(()))) => {
                self.is_cut = None;
                return Poll::Ready(Some(Err("the call was cancelled".into())));
            }
            Some(Poll::Ready(Err(_))) => self.is_cut = None,
            Some(Poll::Pending) | None => {}
        }
        let frame = self.body.as_mut().poll_frame(cx);
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
                let status = failed(error.into());
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
    let status = match error.downcast::<Status>() {
        // A body's: tonic's code for a connection that breaks, and behind it what broke.
        Ok(status) if status.code() == Code::Unknown && status.source().is_some() => *status,
        // Of an interceptor, of a tunnel, or of a stream that was reset.
        Ok(status) => return *status,
        Err(error) if is_timeout(&*error) => {
            return Status::deadline_exceeded("the deadline of the call has passed");
        }
        Err(error) => Status::from_error(error),
    };
    // tonic's codes for a server that cannot be connected to, a broken connection, and one that broke before the call
    // was sent. A server that resets a stream is told apart by what is behind.
    let reset = sources(&status).any(|error| {
        error
            .downcast_ref::<h2::Error>()
            .is_some_and(h2::Error::is_reset)
    });
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled if !reset => {
            Status::unavailable(format!(
                "the server that calls are forwarded to cannot be reached: {}",
                detail(&status)
            ))
        }
        _ => status,
    }
}

/// Whether the channel has enforced the deadline of the call.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    error.is::<TimeoutExpired>() || sources(error).any(|error| error.is::<TimeoutExpired>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_the_channel_has_enforced_is_no_cancellation() {
        let status = failed(Box::new(TimeoutExpired(())));
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[test]
    fn a_connection_that_breaks_is_a_server_that_cannot_be_reached() {
        let status = failed(Box::new(std::io::Error::other("broken")));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(
            status.message().ends_with("cannot be reached: broken"),
            "{status:?}"
        );
    }

    #[test]
    fn a_response_that_breaks_is_told_apart_from_a_status_of_somebody() {
        let mut broken = Status::unknown("error reading a body");
        broken.set_source(std::sync::Arc::new(std::io::Error::other("broken")));
        assert_eq!(failed(Box::new(broken)).code(), Code::Unavailable);
        let said = failed(Box::new(Status::unknown("by an interceptor")));
        assert_eq!(said.code(), Code::Unknown);
    }
}
