//! What a handler is made of.

use std::convert::Infallible;
use std::sync::Arc;

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::{Config, EndReason};
use tunnel_tonic::{AffinityKey, CallService, TunnelInfo};

use crate::policy::{Policy, WhenKeyIsFull};
use crate::service::TunnelServiceHandler;
use crate::{Opening, TunnelHandle};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Collects the services that tunnels reach; from [`TunnelServiceHandler::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TunnelServiceHandlerBuilder<L = Identity> {
    routes: Routes,
    layer: L,
    config: Config,
    inline: bool,
    policy: Policy,
}

impl TunnelServiceHandlerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            routes: Routes::default(),
            layer: Identity::new(),
            config: Config::default(),
            inline: false,
            policy: Policy::default(),
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
            inline: self.inline,
            policy: self.policy,
        }
    }

    /// Sets windows, limits and timeouts of the tunnels. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
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

    /// Whether reverse tunnels are accepted; if not they are refused with UNIMPLEMENTED.
    /// Default: true.
    pub fn reverse_tunnels(mut self, accept: bool) -> Self {
        self.policy.reverse = accept;
        self
    }

    /// Gives each new tunnel of either direction a key, from what is known of it; `None` for a
    /// tunnel without. A reverse tunnel is then reached by its key as well as among all; the
    /// limit of [`max_tunnels_per_key`](Self::max_tunnels_per_key) counts both directions.
    /// Default: no keys.
    ///
    /// Take the key from what the peer cannot choose freely, such as a verified certificate or a
    /// checked token, or check it in [`admit`](Self::admit): whoever has a key gets its calls.
    pub fn affinity_key(
        mut self,
        key: impl Fn(&Opening) -> Option<AffinityKey> + Send + Sync + 'static,
    ) -> Self {
        self.policy.key_of = Some(Arc::new(key));
        self
    }

    /// Decides whether a tunnel of either direction may be opened. It is not listed before, and
    /// counts against no limit; the peer gets the status of a refusal. Default: all may.
    ///
    /// The future is dropped when the peer gives up, or the handler is drained. It has no time
    /// limit of its own. Should it panic, or the function that makes it, the tunnel is refused with
    /// INTERNAL.
    pub fn admit<F>(mut self, admit: impl Fn(Opening) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.policy.admit = Some(Arc::new(move |opening| Box::pin(admit(opening))));
        self
    }

    /// Is told of each tunnel that has opened, when it can carry calls. Must not block: the
    /// tunnel waits meanwhile. A panic is caught and logged.
    pub fn on_open(mut self, opened: impl Fn(&TunnelHandle) + Send + Sync + 'static) -> Self {
        self.policy.on_open = Some(Arc::new(opened));
        self
    }

    /// Is told of the end of each tunnel that had opened, and of its reason. Must not block. A
    /// panic is caught and logged.
    pub fn on_close(
        mut self,
        closed: impl Fn(&TunnelInfo, &EndReason) + Send + Sync + 'static,
    ) -> Self {
        self.policy.on_close = Some(Arc::new(closed));
        self
    }

    /// How many tunnels of both directions may be open at once; more are refused with
    /// RESOURCE_EXHAUSTED. Default: no limit but that of the server's connections.
    pub fn max_tunnels(mut self, max: usize) -> Self {
        self.policy.max_tunnels = max;
        self
    }

    /// How many tunnels of one key may be open at once; see
    /// [`when_key_is_full`](Self::when_key_is_full) for what becomes of more. Default: no limit.
    pub fn max_tunnels_per_key(mut self, max: usize) -> Self {
        self.policy.max_per_key = max;
        self
    }

    /// What becomes of a new tunnel whose key has as many as it may. Default:
    /// [`WhenKeyIsFull::Refuse`].
    pub fn when_key_is_full(mut self, then: WhenKeyIsFull) -> Self {
        self.policy.when_key_is_full = then;
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
        let service = service.poll_inline(self.inline);
        TunnelServiceHandler::new(service, self.config, self.policy)
    }
}
