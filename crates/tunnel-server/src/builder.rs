//! What a handler is made of.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::{Config, EndReason};
use tunnel_tonic::{AffinityKey, CallService, Services, TunnelInfo};

use crate::age::MaxAge;
use crate::policy::{Policy, WhenKeyIsFull};
use crate::service::TunnelServiceHandler;
use crate::{Opening, TunnelHandle};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Collects the services that tunnels reach; from [`TunnelServiceHandler::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TunnelServiceHandlerBuilder<L = Identity> {
    services: Services,
    layer: L,
    config: Config,
    inline: bool,
    policy: Policy,
}

impl TunnelServiceHandlerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            services: Services::default(),
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
    pub fn layer<New>(self, layer: New) -> TunnelServiceHandlerBuilder<Stack<New, L>> {
        TunnelServiceHandlerBuilder {
            services: self.services,
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
    /// RESOURCE_EXHAUSTED. Default: no limit. What the tunnels hold has one of its own.
    pub fn max_tunnels(mut self, max: usize) -> Self {
        self.policy.max_tunnels = max;
        self
    }

    /// How many tunnels of one key may be open at once; see
    /// [`when_key_is_full`](Self::when_key_is_full) for what becomes of more. Default: 10,000, for
    /// keys that stand for groups of devices; where a key is one device, a handful will do.
    pub fn max_tunnels_per_key(mut self, max: usize) -> Self {
        self.policy.max_per_key = max;
        self
    }

    /// How many tunnels one connection may have open at once; more are refused with
    /// RESOURCE_EXHAUSTED. Default: 1,024.
    ///
    /// A device has one or a few. A proxy that puts the tunnels of many devices on one connection
    /// may need more, or a limit of its own at which it takes another connection: HAProxy has one
    /// of 100 streams, Envoy goes by what [`Server::max_concurrent_streams`] announces.
    ///
    /// [`Server::max_concurrent_streams`]: tonic::transport::Server::max_concurrent_streams
    pub fn max_tunnels_per_connection(mut self, max: usize) -> Self {
        self.policy.max_per_connection = max;
        self
    }

    /// How many tunnels *without a key* one IP address (of IPv6: one network of 64 bits) may have
    /// open at once; more are refused with RESOURCE_EXHAUSTED. Tunnels with a key are counted by
    /// [it](Self::max_tunnels_per_key). Default: 10,000.
    ///
    /// Behind a load balancer, or a NAT, all devices share an address: give them keys, or raise
    /// this beyond their number.
    pub fn max_tunnels_per_address(mut self, max: usize) -> Self {
        self.policy.max_per_address = max;
        self
    }

    /// How much all tunnels of the handler, of both directions, may hold together, in bytes: unread
    /// payload, what waits to be sent, message boundaries, and the room that tonic reserves for a
    /// message when it begins to arrive. Default: 1 GiB.
    ///
    /// Each tunnel has limits of its own ([`Config`]); this is for their sum. Beyond it, the calls
    /// that hold most on the tunnels that hold most end with RESOURCE_EXHAUSTED until a sixteenth
    /// is free. Set it to what the process can spare: payload can keep several times its size
    /// alive (`tunnel_core::config` says when), and what the handlers themselves hold comes on top.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.policy.memory_budget = bytes;
        self
    }

    /// Has each tunnel end when it is as old as `age`, more or less by up to a tenth so that
    /// tunnels opened together do not end together. Calls in flight may then go on for `grace`.
    /// Default: no limit. Spreads tunnels over servers that were added, and renews certificates.
    ///
    /// The far end gets a drain notice and opens another tunnel. A reverse tunnel takes calls
    /// until that one does, for at most ten seconds; then it is [drained](TunnelHandle::drain), so
    /// no call fails. The Go and Python libraries do not understand the notice: their tunnels
    /// are drained at once.
    ///
    /// Prefer this to tonic's
    /// [`max_connection_age`](tonic::transport::Server::max_connection_age), which cuts tunnels
    /// together with their calls when its grace is over.
    pub fn max_tunnel_age(mut self, age: Duration, grace: Duration) -> Self {
        self.policy.max_age = Some(MaxAge { age, grace });
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
        let service = CallService::new(self.layer.layer(self.services.into_routes().prepare()));
        let service = service.poll_inline(self.inline);
        TunnelServiceHandler::new(service, self.config, self.policy)
    }
}
