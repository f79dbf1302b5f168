//! Reverse tunnels: this side dials and serves the calls.

use std::convert::Infallible;
use std::sync::Arc;

use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::EndReason;
use tunnel_tonic::{CallService, CallSettings, ForwardTo, Services, TunnelError};

use crate::dial::{BoxError, CloseOnDrop};
use crate::gateway::Gateway;
use crate::links::{LinksHandle, Purpose, Settings, Shared, StopReason, link_settings};

/// Opens tunnels to gateways and serves the calls that arrive through them. So a device behind NAT
/// or a firewall can be called from its gateways with ordinary clients.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # use tonic::service::Routes;
/// # let device = Routes::default();
/// use std::time::Duration;
/// use tonic::transport::Endpoint;
/// use tunnel_client::ReverseTunnelServer;
///
/// let server = ReverseTunnelServer::builder(Endpoint::from_static("http://gateway.example:50051"))
///     .gateway(Endpoint::from_static("http://another.example:50051"))
///     .add_routes(device) // or .add_service(DeviceServer::new(..))
///     .build();
/// let handle = server.handle();
/// let running = tokio::spawn(server.run());
///
/// tokio::signal::ctrl_c().await?;
/// handle.drain(Duration::from_secs(10)).await;
/// println!("{}", running.await?);
/// # Ok(())
/// # }
/// ```
///
/// # One tunnel, or tunnels that are kept up
///
/// [`serve`](Self::serve) opens one tunnel, serves its calls, and returns why it ended.
/// [`run`](Self::run) keeps tunnels up: one *link* for each of
/// [`tunnels_per_gateway`](ReverseTunnelServerBuilder::tunnels_per_gateway) to each gateway.
///
/// # The states of a link
///
/// ```text
///                      refused or failed
///              ┌────────────────────────────────┐
///              ▼                                │
///         BackingOff ──── time is up ────▶ Connecting ◀── start
///          ▲      ▲                             │
///   broken │      │ failed                      │ accepted
///          │      │                             ▼
///          │      └────────── Draining ───▶ Connected
///          │                      ▲    accepted │ │
///          │                      └─────────────┘ │
///          │               told to drain          │
///          └──────────────────────────────────────┘
///
///   from anywhere: told to drain or to close ──▶ (Draining) ──▶ Stopped
/// ```
///
/// - *Connected*: the gateway routes calls to the tunnel: one that the gateway makes from now on does not fail
///   for lack of a tunnel. A gateway of another implementation, or with revision zero, does not say when it does;
///   there, *connected* means that it has accepted the tunnel, and its first calls may come too early.
/// - *Backing off*: the link waits as [`Backoff`](crate::Backoff) says, after a loss for the time that the
///   gateway has told, so that its devices do not return together. Lasting refusals
///   (UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT, UNIMPLEMENTED) are retried slowly, are
///   marked as `refused` in [`LinkState::BackingOff`](crate::LinkState::BackingOff), and are logged
///   as warnings. A tunnel that the gateway ends later with such a status counts as refused too.
/// - *Draining*: the gateway has asked the tunnel to drain. Calls in flight go on, and the link opens
///   another tunnel. With several gateways, it opens a *fallback tunnel* to the next gateway that is
///   not known to be away ([`LinkStatus::fallback_tunnel`](crate::LinkStatus::fallback_tunnel)), and
///   dials its own gateway with backoff; once that accepts, the fallback tunnel is drained. With one
///   gateway the link dials it again at once, because a load balancer may lead to another instance.
///   A gateway that drains one young tunnel after the other is dialled with backoff.
///   A gateway that tells its *siblings* gets its fallback tunnel at one of them
///   ([`Gateway::follow_siblings`]), and is itself dialled five seconds later at the earliest, unless no sibling
///   accepts the tunnel.
/// - If the gateway ends a connection because pings are too frequent, its keepalive is slowed down
///   for a day (only for gateways made from an [`Endpoint`](tonic::transport::Endpoint)). The reason
///   is often lost with the connection. So if two tunnels in a row break three to five pings after
///   the gateway was last heard, the keepalive is slowed down for half an hour.
///
/// # Logs
///
/// Tunnels that connect and end, and attempts that fail, are logged at level `info`; refusals at
/// `warn`, attempts at `debug`. Metadata, and so credentials, never are.
#[derive(Debug)]
#[must_use = "a server does nothing until it serves or runs"]
pub struct ReverseTunnelServer {
    shared: Arc<Shared>,
}

impl ReverseTunnelServer {
    /// A builder for a server that opens its tunnels to this gateway: an [`Endpoint`](tonic::transport::Endpoint), a
    /// [`Channel`](tonic::transport::Channel), or a [`Gateway`] of any other kind.
    pub fn builder(gateway: impl Into<Gateway>) -> ReverseTunnelServerBuilder {
        ReverseTunnelServerBuilder {
            gateways: vec![gateway.into()],
            services: Services::default(),
            layer: Identity::new(),
            calls: CallSettings::default(),
            settings: Settings::default(),
        }
    }

    /// A handle to watch and stop the server.
    pub fn handle(&self) -> LinksHandle {
        LinksHandle::new(self.shared.clone())
    }

    /// Opens one tunnel to the first gateway, and serves its calls until it is closed. Returns the
    /// reason. Dropping the future closes the tunnel.
    ///
    /// Each call of this method opens a tunnel of its own; several can run at the same time. The
    /// [`handle`](Self::handle) shows each as a link while it lasts.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]: the tunnel could not be opened.
    pub async fn serve(&self) -> Result<EndReason, TunnelError> {
        let (live, _single) = self.shared.open_single().await?;
        let _close = CloseOnDrop::new(live.tunnel.clone());
        let reason = live.tunnel.closed().await;
        self.shared.learn(&live, Some(&reason));
        Ok(reason)
    }

    /// Keeps the tunnels up and serves their calls until the [`handle`](Self::handle) stops the server.
    /// Returns how it was stopped.
    ///
    /// Dropping the future closes all tunnels.
    pub async fn run(self) -> StopReason {
        self.shared.run().await
    }
}

impl Drop for ReverseTunnelServer {
    fn drop(&mut self) {
        self.shared.close(StopReason::Dropped);
        self.shared.all_stopped();
    }
}

/// The builder of a server; from [`ReverseTunnelServer::builder`].
///
/// [`serve`](Self::serve) and [`run`](Self::run) build the server and start it. [`build`](Self::build)
/// returns the server, whose [`handle`](ReverseTunnelServer::handle) watches and stops it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ReverseTunnelServerBuilder<L = Identity> {
    gateways: Vec<Gateway>,
    services: Services,
    layer: L,
    calls: CallSettings,
    settings: Settings,
}

impl<L> ReverseTunnelServerBuilder<L> {
    link_settings!();

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

    /// Sets the service for calls to unknown services. Default: the fallback of the
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

    /// Forwards calls to unknown services to a channel, for example to a server on the same machine; with no
    /// services added, all calls. Replaces [`fallback`](Self::fallback). [`ForwardTo`] says what passes, and what
    /// happens if the server is not there.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::ReverseTunnelServer;
    ///
    /// # async fn example() {
    /// let local = Endpoint::from_static("http://127.0.0.1:50051").connect_lazy();
    /// let device = ReverseTunnelServer::builder(Endpoint::from_static("http://gateway.example:50051"))
    ///     .forward_to(local);
    /// # let _ = device;
    /// # }
    /// ```
    pub fn forward_to<S, B>(self, channel: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        self.fallback(ForwardTo::new(channel))
    }

    /// Puts a tower layer around every tunnelled call: an interceptor
    /// ([`InterceptorLayer`](tonic::service::InterceptorLayer)), tracing, authorization. The
    /// first layer added is the outermost, as in tonic's server.
    pub fn layer<New>(self, layer: New) -> ReverseTunnelServerBuilder<Stack<New, L>> {
        ReverseTunnelServerBuilder {
            gateways: self.gateways,
            services: self.services,
            layer: Stack::new(layer, self.layer),
            calls: self.calls,
            settings: self.settings,
        }
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
    /// Builds the server.
    pub fn build(self) -> ReverseTunnelServer {
        let calls = CallService::new(self.layer.layer(self.services.into_routes().prepare()));
        let calls = calls.settings(self.calls);
        ReverseTunnelServer {
            shared: Shared::new(self.settings, self.gateways, Purpose::Serve(calls)),
        }
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
    /// [`TunnelError`]: the tunnel could not be opened.
    pub async fn serve(self) -> Result<EndReason, TunnelError> {
        self.build().serve().await
    }

    /// Builds the server and keeps its tunnels up; see [`ReverseTunnelServer::run`].
    pub async fn run(self) -> StopReason {
        self.build().run().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::transport::Endpoint;

    /// Devices run in tasks.
    #[test]
    fn what_runs_is_send() {
        fn is_send(_: impl Send) {}
        let builder = || ReverseTunnelServer::builder(Endpoint::from_static("http://nowhere"));
        let server = builder().build();
        let handle = server.handle();
        is_send(server.serve());
        is_send(async move { server.serve().await });
        is_send(async move { builder().serve().await });
        is_send(async move { builder().build().run().await });
        is_send(async move { builder().run().await });
        is_send(async move {
            let _ = handle.connected().await;
            handle.drain(std::time::Duration::ZERO).await;
        });
    }
}
