//! A channel with an erased type.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

/// A channel for generated clients with an erased type, so that a case is compiled once and not for
/// each path.
///
/// Errors are boxed. tonic's client converts a boxed error to the same status as the original.
#[derive(Clone)]
pub struct TestChannel(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>);

impl TestChannel {
    /// Erases the type of a channel.
    pub fn new<S, B>(channel: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>,
        S: Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let channel = channel
            .map_response(|response: http::Response<B>| response.map(Body::new))
            .map_err(Into::into);
        Self(BoxCloneSyncService::new(channel))
    }
}

impl Service<http::Request<Body>> for TestChannel {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl fmt::Debug for TestChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestChannel").finish_non_exhaustive()
    }
}
