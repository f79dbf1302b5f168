//! What a handler is made of.

use std::convert::Infallible;

use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::Config;
use tunnel_tonic::CallService;

use crate::service::TunnelServiceHandler;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Collects the services that tunnels reach; from [`TunnelServiceHandler::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TunnelServiceHandlerBuilder<L = Identity> {
    routes: Routes,
    layer: L,
    config: Config,
}

impl TunnelServiceHandlerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            routes: Routes::default(),
            layer: Identity::new(),
            config: Config::default(),
        }
    }
}

impl<L> TunnelServiceHandlerBuilder<L> {
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
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds services that were put together elsewhere. Where both have a service of one name,
    /// the one in `routes` is reached.
    pub fn add_routes(mut self, routes: Routes) -> Self {
        let before = self.routes.into_axum_router();
        self.routes = routes.into_axum_router().fallback_service(before).into();
        self
    }

    /// Puts a tower layer around every tunnelled call: an interceptor
    /// ([`InterceptorLayer`](tonic::service::InterceptorLayer)), tracing, authorization. The
    /// first layer added is the outermost, as in tonic's server.
    pub fn layer<New>(self, layer: New) -> TunnelServiceHandlerBuilder<Stack<New, L>> {
        TunnelServiceHandlerBuilder {
            routes: self.routes,
            layer: Stack::new(layer, self.layer),
            config: self.config,
        }
    }

    /// Sets windows, limits and timeouts of the tunnels. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The handler.
    pub fn build<B>(self) -> TunnelServiceHandler
    where
        L: Layer<Routes>,
        L::Service: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<http::Request<Body>>>::Future: Send + 'static,
        <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError> + Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = CallService::new(self.layer.layer(self.routes.prepare()));
        TunnelServiceHandler::new(service, self.config)
    }
}
