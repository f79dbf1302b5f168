//! The one address: a proxy that sends every HTTP/2 stream to the next backend.
//!
//! It knows neither of tunnels nor of gRPC: a request comes, is sent on, and its
//! response comes back, bodies and trailers as they are. This is how balancers
//! made for gRPC work: one that only distributes connections would leave a busy
//! client with a single backend for as long as its connection lives.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use example_support::exit::root_cause;
use example_support::listen::Listener;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Server};
use tower::ServiceExt;
use tower_service::Service;
use tracing::error;
use tunnel_server::server_for_tunnels;

/// A balancer that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    serving: JoinHandle<()>,
}

impl Balancer {
    /// Starts a balancer in front of backends.
    pub(crate) fn start(listener: Listener, backends: Vec<Channel>) -> Self {
        let proxy = RoundRobin {
            backends: backends.into(),
            turns: Arc::default(),
        };
        let server = server_for_tunnels(Server::builder());
        let serving = server.serve_with_incoming(proxy, listener.incoming());
        let serving = tokio::spawn(async move {
            if let Err(error) = serving.await {
                error!("the balancer failed: {error}");
            }
        });
        Self { serving }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Sends each request to the backend whose turn it is. Clones take turns together.
#[derive(Clone, Debug)]
struct RoundRobin {
    backends: Arc<[Channel]>,
    turns: Arc<AtomicUsize>,
}

impl RoundRobin {
    fn next(&self) -> Channel {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        self.backends[turn % self.backends.len()].clone()
    }
}

impl Service<Request<Body>> for RoundRobin {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // What the connection from the client is about does not concern the other.
        request.extensions_mut().clear();
        let sent = self.next().oneshot(request);
        Box::pin(async move {
            Ok(sent.await.unwrap_or_else(|error| {
                let what = format!("no backend answers: {}", root_cause(&error));
                Status::unavailable(what).into_http()
            }))
        })
    }
}
