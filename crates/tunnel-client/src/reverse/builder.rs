//! What a server of reverse tunnels is made of.

use std::convert::Infallible;

use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::EndReason;
use tunnel_tonic::{CallService, Services, TunnelError};

use super::ReverseTunnelServer;
use crate::Gateway;
use crate::dial::BoxError;
use crate::links::{Settings, StopReason, link_settings};

/// Collects what a server is made of; from [`ReverseTunnelServer::builder`].
///
/// [`serve`](Self::serve) and [`run`](Self::run) build the server and start it; with
/// [`build`](Self::build) there is also a handle to watch and to stop it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ReverseTunnelServerBuilder<L = Identity> {
    gateways: Vec<Gateway>,
    services: Services,
    layer: L,
    inline: bool,
    settings: Settings,
}

impl ReverseTunnelServerBuilder {
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            gateways: vec![gateway],
            services: Services::default(),
            layer: Identity::new(),
            inline: false,
            settings: Settings::default(),
        }
    }
}

impl<L> ReverseTunnelServerBuilder<L> {
    link_settings!();

    /// Adds a generated server, unmodified, with or without an interceptor.
    ///
    /// # Panics
    ///
    /// Two services of one name: tonic's router panics, here as in its own server.
    pub fn add_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.services.add_service(service);
        self
    }

    /// Adds services that were put together elsewhere, with the fallback they have. Where both have
    /// a service of one name, the one in `routes` is reached.
    pub fn add_routes(mut self, routes: Routes) -> Self {
        self.services.add_routes(routes);
        self
    }

    /// Sets the service that gets the calls to all services that were not added, a proxy for
    /// example. Default: the fallback of the latest routes added, or an answer of UNIMPLEMENTED.
    pub fn fallback<S, B>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.services.set_fallback(service);
        self
    }

    /// Puts a tower layer around every tunnelled call: an interceptor
    /// ([`InterceptorLayer`](tonic::service::InterceptorLayer)), tracing, authorization. The
    /// first layer added is the outermost, as in tonic's server.
    pub fn layer<New>(self, layer: New) -> ReverseTunnelServerBuilder<Stack<New, L>> {
        ReverseTunnelServerBuilder {
            gateways: self.gateways,
            services: self.services,
            layer: Stack::new(layer, self.layer),
            inline: self.inline,
            settings: self.settings,
        }
    }

    /// Whether each call is polled once by its tunnel's own task before it gets a task of its own.
    /// Default: false.
    ///
    /// A handler that answers without waiting then costs no task: small calls get faster (see the
    /// benchmark). Done only while no more than 128 calls are open on the tunnel. The risk: a
    /// handler that computes for long, or blocks, before its first `await` holds up every call of
    /// its tunnel meanwhile, cancels and deadlines included. A panic is caught as ever.
    pub fn poll_handlers_inline(mut self, inline: bool) -> Self {
        self.inline = inline;
        self
    }
}

impl<L, B> ReverseTunnelServerBuilder<L>
where
    L: Layer<Routes>,
    L::Service:
        Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
    <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// The server.
    pub fn build(self) -> ReverseTunnelServer {
        let calls = CallService::new(self.layer.layer(self.services.into_routes().prepare()));
        let calls = calls.poll_inline(self.inline);
        ReverseTunnelServer::new(self.settings, self.gateways, calls)
    }

    /// Builds the server and opens one tunnel; see [`ReverseTunnelServer::serve`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tonic::service::Routes;
    /// # let device = Routes::default();
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::ReverseTunnelServer;
    ///
    /// let channel = Endpoint::from_static("http://gateway.example:50051").connect().await?;
    /// let reason = ReverseTunnelServer::builder(channel)
    ///     .add_routes(device) // or .add_service(DeviceServer::new(..))
    ///     .serve()
    ///     .await?;
    /// println!("the tunnel has ended: {reason}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn serve(self) -> Result<EndReason, TunnelError> {
        self.build().serve().await
    }

    /// Builds the server and keeps its tunnels up for ever; see [`ReverseTunnelServer::run`].
    pub async fn run(self) -> StopReason {
        self.build().run().await
    }
}
