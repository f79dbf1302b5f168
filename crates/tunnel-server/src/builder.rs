//! The builder of a handler.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::{Config, EndReason, Stats};
use tunnel_tonic::outer::check_encoding;
use tunnel_tonic::telemetry::InjectTrace;
use tunnel_tonic::{AffinityKey, CallService, CallSettings, Services, TunnelInfo};

use crate::policy::{Policy, WhenKeyIsFull};
use crate::service::TunnelServiceHandler;
use crate::{AcceptedTunnel, Opening};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The builder of a handler: its services, settings and hooks; from
/// [`TunnelServiceHandler::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TunnelServiceHandlerBuilder<L = Identity> {
    services: Services,
    layer: L,
    config: Config,
    calls: CallSettings,
    send: Option<CompressionEncoding>,
    policy: Policy,
}

impl TunnelServiceHandler {
    /// A builder for a handler.
    pub fn builder() -> TunnelServiceHandlerBuilder {
        TunnelServiceHandlerBuilder::new()
    }
}

impl TunnelServiceHandlerBuilder {
    fn new() -> Self {
        Self {
            services: Services::default(),
            layer: Identity::new(),
            config: Config::default(),
            calls: CallSettings::default(),
            send: None,
            policy: Policy::default(),
        }
    }
}

impl<L> TunnelServiceHandlerBuilder<L> {
    /// Adds a generated server, with or without an interceptor.
    ///
    /// # Panics
    ///
    /// If two services have the same name: tonic's router panics, as in tonic's server.
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

    /// Adds a router with its services and its fallback. If a service was added before under the same
    /// name, the one in `routes` is used.
    pub fn add_routes(mut self, routes: Routes) -> Self {
        self.services.add_routes(routes);
        self
    }

    /// Sets the service for calls to unknown services, for example [`ForwardTo`](crate::ForwardTo) another server. Default: the fallback of the
    /// latest router that was added, or UNIMPLEMENTED.
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
            calls: self.calls,
            send: self.send,
            policy: self.policy,
        }
    }

    /// The windows, limits and timeouts of the tunnels. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets a function that is called with the span of each call served and the call's metadata, before the span
    /// is entered: to make the caller's span its parent, from the trace context in the metadata. A layer cannot
    /// do that, because it runs inside the span. Default: none.
    ///
    /// The spans then have the level `info` instead of `debug`. The function must not block. A panic is caught
    /// and logged.
    pub fn extract_trace(
        mut self,
        extract: impl Fn(&tracing::Span, &http::HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.calls.extract_trace(extract);
        self
    }

    /// Sets a function that is called with the span of each call made through reverse tunnels and the metadata to add to it, for
    /// example a trace context. Default: none.
    ///
    /// The spans then have the level `info` instead of `debug`. The function must not block. A panic is caught
    /// and logged.
    pub fn inject_trace(
        mut self,
        inject: impl Fn(&tracing::Span, &mut http::HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.policy.inject = Some(InjectTrace::new(inject));
        self
    }

    /// Whether the tunnel's task polls each call once before the call gets its own task. Default:
    /// false.
    ///
    /// A handler that answers without waiting then needs no task, so small calls are faster. Only done
    /// while at most 128 calls are open on the tunnel. Risk: a handler that computes for long or
    /// blocks before its first `await` delays all calls of its tunnel, their cancels and deadlines
    /// too.
    pub fn poll_handlers_inline(mut self, inline: bool) -> Self {
        self.calls.poll_inline(inline);
        self
    }

    /// Compresses what this end sends through tunnels, each frame by itself. The feature with the
    /// name of the encoding must be enabled. Default: not compressed.
    ///
    /// Frames below 512 bytes are sent as they are. It pays for compressible messages of a
    /// kilobyte or more, where the network is slower than the compression. Tunnels of peers that do
    /// not accept the encoding are not compressed. Whether the far end compresses is its own setting:
    /// this end accepts each encoding whose feature is enabled. To compress single calls instead, use the `send_compressed` of generated clients
    /// and servers.
    ///
    /// # Panics
    ///
    /// If tonic has the feature of the encoding, and this crate has not.
    pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
        check_encoding(encoding);
        self.send = Some(encoding);
        self
    }

    /// Whether reverse tunnels are accepted; if not they are refused with UNIMPLEMENTED.
    /// Default: true.
    pub fn reverse_tunnels(mut self, accept: bool) -> Self {
        self.policy.reverse = accept;
        self
    }

    /// Derives the key of each new tunnel, of either direction, from its opening; `None` for no key. A
    /// reverse tunnel with a key is in the channel of that key, and in the channel of all tunnels. The limit of
    /// [`max_tunnels_per_key`](Self::max_tunnels_per_key) counts both directions. Default: no keys.
    ///
    /// The peer with a key receives the calls for it. So take the key from something that the peer
    /// cannot choose, such as a verified certificate or a checked token, or check it in
    /// [`admit`](Self::admit).
    pub fn affinity_key(
        mut self,
        key: impl Fn(&Opening) -> Option<AffinityKey> + Send + Sync + 'static,
    ) -> Self {
        self.policy.key_of = Some(Arc::new(key));
        self
    }

    /// Decides whether a tunnel of either direction may be opened; an error is the status of the
    /// refusal. Meanwhile the tunnel is not listed and counts against no limit. Default: all may. Several such
    /// hooks are asked in their order, until one refuses.
    ///
    /// The future is dropped when the peer gives up or the handler is drained. It has no timeout. If
    /// the hook panics, the tunnel is refused with INTERNAL.
    pub fn admit<F>(mut self, admit: impl Fn(Opening) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let admit = move |opening| Box::pin(admit(opening)) as _;
        self.policy.admit.push(Arc::new(admit));
        self
    }

    /// Called when a tunnel has opened and takes calls. It must not block, because the tunnel waits. A
    /// panic is caught and logged. Several such hooks are called in their order.
    pub fn on_open(mut self, opened: impl Fn(&AcceptedTunnel) + Send + Sync + 'static) -> Self {
        self.policy.on_open.push(Arc::new(opened));
        self
    }

    /// Called when a tunnel that had opened has ended, with the reason and its final counters. It must not
    /// block. A panic is caught and logged. Several such hooks are called in their order.
    pub fn on_close(
        mut self,
        closed: impl Fn(&TunnelInfo, &EndReason, &Stats) + Send + Sync + 'static,
    ) -> Self {
        self.policy.on_close.push(Arc::new(closed));
        self
    }

    /// The most tunnels of both directions at once; more are refused with RESOURCE_EXHAUSTED. Default:
    /// no limit. Their memory has [its own limit](Self::memory_budget).
    pub fn max_tunnels(mut self, max: usize) -> Self {
        self.policy.max_tunnels = max;
        self
    }

    /// The most tunnels of one key at once; [`when_key_is_full`](Self::when_key_is_full) says what
    /// happens to more. Default: 10,000, for keys that name groups of devices. If a key names one
    /// device, a few are enough.
    pub fn max_tunnels_per_key(mut self, max: usize) -> Self {
        self.policy.max_per_key = max;
        self
    }

    /// The most tunnels of one connection at once; more are refused with RESOURCE_EXHAUSTED. Default:
    /// 1,024.
    ///
    /// A device has one or a few. A proxy may put the tunnels of many devices on one connection.
    /// HAProxy opens another connection after 100 streams, Envoy after the number that
    /// [`Server::max_concurrent_streams`] announces.
    ///
    /// [`Server::max_concurrent_streams`]: tonic::transport::Server::max_concurrent_streams
    pub fn max_tunnels_per_connection(mut self, max: usize) -> Self {
        self.policy.max_per_connection = max;
        self
    }

    /// The most tunnels *without a key* of one IP address (IPv6: one /64 network) at once; more are
    /// refused with RESOURCE_EXHAUSTED. Tunnels with a key count
    /// [by key](Self::max_tunnels_per_key). Default: 10,000.
    ///
    /// Devices behind a load balancer or a NAT share an address. Give them keys, or raise this limit.
    pub fn max_tunnels_per_address(mut self, max: usize) -> Self {
        self.policy.max_per_address = max;
        self
    }

    /// The memory of all tunnels of the handler together, in bytes: unread messages, messages that wait
    /// to be sent, and memory that tonic reserves when a message begins to arrive. Default: 1 GiB.
    ///
    /// Each tunnel also has its own limits ([`Config`]). Over the budget, the largest calls of the
    /// largest tunnels end with RESOURCE_EXHAUSTED until a sixteenth of it is free. The process needs
    /// more than the budget: messages can keep several times their size alive (`tunnel_core::config`
    /// says when), and handlers have their own memory.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.policy.memory_budget = bytes;
        self
    }

    /// The most tunnels that are being opened at once; more are refused with UNAVAILABLE. Default: no limit.
    ///
    /// An opening counts from its request until its tunnel takes calls: while [`admit`](Self::admit) decides, and
    /// then while the far end answers, for at most a second. So set it to the number of openings that `admit`, and
    /// what it asks, can serve at the same time; without `admit` to about a hundred for each core. There is no
    /// default, because only the application knows that number.
    ///
    /// A refusal has `grpc-retry-pushback-ms` in its metadata, from 50 ms to 90 s. It is the time until the
    /// openings that were refused before have probably been admitted, more or less by up to a half. So a herd of
    /// devices returns as fast as it can be admitted. Devices of this library honour it.
    pub fn max_openings_at_once(mut self, max: usize) -> Self {
        self.policy.max_openings_at_once = Some(max);
        self
    }

    /// Over how long the devices should spread their return when this server is lost: a function of the number of
    /// tunnels that are open. Default: none, and devices return as their own backoff says, within 500 ms.
    ///
    /// Devices are told when their tunnels open, in the response header `tunnel-return-ms`, and again each minute
    /// if both ends run this library. A device that loses its last tunnel to a crash of the server, or of the
    /// network, waits a random part of this time before it dials, and a device with another tunnel a random part
    /// of ten times this time. Devices believe at most ten minutes, or an hour with another tunnel.
    ///
    /// A good value is the number of tunnels divided by the openings that the *other* servers can take in a
    /// second. The function is called for each opening and each second, and must not block. If it panics, nothing
    /// is told.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tunnel_server::TunnelServiceHandler;
    ///
    /// // Two other servers, with 3,000 openings a second each.
    /// let handler = TunnelServiceHandler::builder()
    ///     .return_spread(|open| Duration::from_secs_f64(open as f64 / 6_000.0))
    ///     .build();
    /// # let _ = handler;
    /// ```
    pub fn return_spread(
        mut self,
        spread: impl Fn(usize) -> Duration + Send + Sync + 'static,
    ) -> Self {
        self.policy.return_spread = Some(Arc::new(spread));
        self
    }

    /// Whether the metrics of a tunnel are labelled with its key. Default: false, because each key adds time
    /// series, which no recorder removes by itself. For fleets of a few hundred devices at most.
    #[cfg(feature = "metrics")]
    pub fn metrics_by_key(mut self, label: bool) -> Self {
        self.policy.metrics_by_key = label;
        self
    }

    /// The maximum age of tunnels, with a jitter of a tenth so that tunnels that were opened together do
    /// not end together. Default: no limit. A maximum age spreads tunnels over new servers and renews
    /// certificates.
    ///
    /// The far end gets a drain notice and opens another tunnel. A reverse tunnel takes calls until the
    /// other one does, for at most ten seconds; then it is [drained](AcceptedTunnel::drain), with
    /// [`drain_timeout`](Self::drain_timeout) for calls in flight. So no call fails. Tunnels of the Go and Python libraries, which do not understand the notice, are drained
    /// at once.
    ///
    /// Prefer this to tonic's
    /// [`max_connection_age`](tonic::transport::Server::max_connection_age), which cuts tunnels and
    /// their calls after its grace.
    pub fn max_tunnel_age(mut self, age: Duration) -> Self {
        self.policy.max_tunnel_age = Some(age);
        self
    }

    /// How long calls in flight may go on in a tunnel that has reached its
    /// [maximum age](Self::max_tunnel_age). Default: 30 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.policy.drain_timeout = timeout;
        self
    }

    /// What happens to a new tunnel whose key has reached its limit. Default:
    /// [`WhenKeyIsFull::Refuse`].
    pub fn when_key_is_full(mut self, then: WhenKeyIsFull) -> Self {
        self.policy.when_key_is_full = then;
        self
    }

    /// Builds the handler.
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
        let service = service.settings(self.calls);
        TunnelServiceHandler::new(service, self.config, self.send, self.policy)
    }
}
