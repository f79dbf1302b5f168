//! The one address: a proxy that sends every HTTP/2 stream to the next backend.
//!
//! It forwards requests and responses with their bodies and trailers, and knows
//! nothing about tunnels or gRPC. Balancers for gRPC work like this. A balancer of
//! connections would send all calls of a client to one backend.

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

/// Sends each request to the next backend. Clones share the turn.
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
        // Headers of the client's connection do not belong on the backend's.
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
