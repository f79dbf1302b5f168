//! The service at which tunnels are opened.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;
use tunnel_core::{Config, Stats};
use tunnel_tonic::outer::{
    OPEN_REVERSE_TUNNEL_PATH, OPEN_TUNNEL_PATH, SERVICE_NAME, common_offer, put_offer,
};
use tunnel_tonic::{CallService, Direction, NetworkRole, Tunnel, TunnelId, TunnelInfo};

use crate::builder::TunnelServiceHandlerBuilder;
use crate::registry::Registry;

/// Accepts tunnels, and serves the calls that come through them. Cheap to clone; clones are
/// the same handler.
#[derive(Clone, Debug)]
pub struct TunnelServiceHandler {
    calls: CallService,
    config: Config,
    registry: Arc<Registry>,
}

impl TunnelServiceHandler {
    /// Begins a handler.
    pub fn builder() -> TunnelServiceHandlerBuilder {
        TunnelServiceHandlerBuilder::new()
    }

    pub(crate) fn new(calls: CallService, config: Config) -> Self {
        Self {
            calls,
            config,
            registry: Registry::new(),
        }
    }

    /// The service to add to a tonic server. Any number of them may be, and to several servers.
    pub fn service(&self) -> TunnelService {
        TunnelService {
            handler: self.clone(),
        }
    }

    /// The tunnels that are open, oldest first.
    pub fn tunnels(&self) -> Vec<TunnelInfo> {
        self.registry.infos()
    }

    /// The counters of the tunnels that are open.
    pub fn stats(&self) -> Vec<(TunnelId, Stats)> {
        let tunnels = self.registry.tunnels();
        let mut stats: Vec<_> = tunnels
            .iter()
            .map(|tunnel| (tunnel.info().id(), tunnel.stats()))
            .collect();
        stats.sort_by_key(|&(id, _)| id);
        stats
    }

    /// How many calls something is kept for. Zero when all have ended.
    #[doc(hidden)]
    pub fn kept_calls(&self) -> usize {
        self.registry.tunnels().iter().map(Tunnel::kept_calls).sum()
    }

    /// Ends all tunnels in order, for a shutdown: from now on new tunnels and new calls are
    /// refused with UNAVAILABLE; calls in flight may go on for `deadline`, then they are ended.
    /// Returns when the last tunnel has gone.
    ///
    /// The drain goes on when this future is dropped. A second drain can bring the deadline
    /// forward: one of zero ends all calls now.
    ///
    /// Give a tonic server a signal that fires after this, for it waits for open tunnels
    /// without end:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(
    /// #     handler: tunnel_server::TunnelServiceHandler,
    /// #     addr: std::net::SocketAddr,
    /// #     ctrl_c: impl Future<Output = ()>,
    /// # ) -> Result<(), tonic::transport::Error> {
    /// tonic::transport::Server::builder()
    ///     .add_service(handler.service())
    ///     .serve_with_shutdown(addr, async {
    ///         ctrl_c.await;
    ///         handler.drain(Duration::from_secs(10)).await;
    ///     })
    ///     .await
    /// # }
    /// ```
    pub async fn drain(&self, deadline: Duration) {
        self.registry.drain(deadline).await;
    }

    fn open(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        match request.uri().path() {
            OPEN_TUNNEL_PATH => self.open_forward(request),
            OPEN_REVERSE_TUNNEL_PATH => Err(Status::unimplemented(
                "this server accepts no reverse tunnels",
            )),
            _ => Err(Status::unimplemented("")),
        }
    }

    fn open_forward(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let offer = common_offer(&self.config, request.headers());
        let request = tonic::Request::from_http(request);
        let peer = request.remote_addr();
        let (metadata, extensions, inbound) = request.into_parts();
        let info = TunnelInfo::new(Direction::Forward, metadata, peer);
        let tunnel = Tunnel::new(NetworkRole::Server, self.config.clone(), info);
        let outbound = tunnel.outbound();
        let Some(entry) = self.registry.insert(&tunnel) else {
            return Err(Status::unavailable("the server is draining its tunnels"));
        };
        tracing::debug!(tunnel = ?tunnel.info(), "tunnel opened");
        let calls = self.calls.clone();
        tunnel.start(offer, inbound, Some((calls, extensions)), entry);
        let mut response = http::Response::new(Body::new(outbound));
        put_offer(&self.config, response.headers_mut());
        Ok(response)
    }
}

/// `grpctunnel.v1.TunnelService`, for a tonic server; from
/// [`TunnelServiceHandler::service`].
#[derive(Clone, Debug)]
pub struct TunnelService {
    handler: TunnelServiceHandler,
}

impl NamedService for TunnelService {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for TunnelService
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let response = self
            .handler
            .open(request.map(Body::new))
            .unwrap_or_else(Status::into_http);
        ready(Ok(response))
    }
}
