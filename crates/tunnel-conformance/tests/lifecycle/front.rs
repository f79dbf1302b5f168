//! A gateway's service for outside callers, which forwards calls to the device that they name.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;
use tunnel_server::TunnelServiceHandler;

use crate::support::KEY;

/// Forwards calls of the test service to the device that their metadata names.
#[derive(Clone)]
pub(crate) struct Front {
    handler: TunnelServiceHandler,
}

impl Front {
    pub(crate) fn new(handler: &TunnelServiceHandler) -> Self {
        Self {
            handler: handler.clone(),
        }
    }
}

impl NamedService for Front {
    const NAME: &'static str = "tunnel.conformance.v1.TestService";
}

impl Service<http::Request<Body>> for Front {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let key = request.headers().get(KEY).and_then(|key| key.to_str().ok());
        let key = key.unwrap_or_default().to_owned();
        let mut device = self.handler.key_as_channel(key);
        Box::pin(async move {
            let response = device.call(request).await;
            Ok(response.map_or_else(Status::into_http, |response| response.map(Body::new)))
        })
    }
}
