//! What a server of reverse tunnels is made of.

use std::convert::Infallible;
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower_layer::{Identity, Layer, Stack};
use tower_service::Service;
use tunnel_core::{Config, EndReason};
use tunnel_tonic::{CallService, TunnelError};

use super::ReverseTunnelServer;
use super::credentials::{Attempt, Credentials};
use super::shared::Settings;
use super::status::StopReason;
use crate::dial::{BoxError, OPEN_TIMEOUT};
use crate::{Backoff, Gateway};

/// How long the calls of a tunnel that stands in have when it is not needed any more.
const STAND_IN_DEADLINE: Duration = Duration::from_secs(30);

/// Collects what a server is made of; from [`ReverseTunnelServer::builder`].
///
/// [`serve`](Self::serve) and [`run`](Self::run) build the server and start it; with
/// [`build`](Self::build) there is also a handle to watch and to stop it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ReverseTunnelServerBuilder<L = Identity> {
    gateways: Vec<Gateway>,
    routes: Routes,
    layer: L,
    inline: bool,
    settings: Settings,
}

impl ReverseTunnelServerBuilder {
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            gateways: vec![gateway],
            routes: Routes::default(),
            layer: Identity::new(),
            inline: false,
            settings: Settings {
                tunnels_per_gateway: 1,
                credentials: Credentials::default(),
                config: Config::default(),
                open_timeout: OPEN_TIMEOUT,
                backoff: Backoff::default(),
                stand_in_deadline: STAND_IN_DEADLINE,
            },
        }
    }
}

impl<L> ReverseTunnelServerBuilder<L> {
    /// Adds a gateway, to which tunnels are kept up as to the others. When one of them drains,
    /// the next ones stand in.
    pub fn gateway(mut self, gateway: impl Into<Gateway>) -> Self {
        self.gateways.push(gateway.into());
        self
    }

    /// How many tunnels are kept up to each gateway. Default, and at least: 1.
    pub fn tunnels_per_gateway(mut self, count: usize) -> Self {
        self.settings.tunnels_per_gateway = count.max(1);
        self
    }

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
    pub fn layer<New>(self, layer: New) -> ReverseTunnelServerBuilder<Stack<New, L>> {
        ReverseTunnelServerBuilder {
            gateways: self.gateways,
            routes: self.routes,
            layer: Stack::new(layer, self.layer),
            inline: self.inline,
            settings: self.settings,
        }
    }

    /// Metadata to open tunnels with, in place of what was set before: who this device is.
    /// Default: none.
    ///
    /// The gateway shows it to whoever decides about the tunnel and uses it.
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.settings.credentials.fixed = metadata;
        self
    }

    /// Asks for metadata before each attempt to open a tunnel: tokens that expire. What the
    /// function returns takes the place of what [`metadata`](Self::metadata) has under the same
    /// keys. Default: none.
    ///
    /// A function that fails or panics, or takes longer than
    /// [`open_timeout`](Self::open_timeout), has failed the attempt; its status counts as the
    /// gateway's would ([`LinkError::is_refusal`](crate::LinkError::is_refusal)).
    ///
    /// ```
    /// use tonic::Status;
    /// use tonic::metadata::MetadataMap;
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::{LinkError, ReverseTunnelServer};
    ///
    /// # async fn token(fresh: bool) -> Result<String, Status> { Ok(String::new()) }
    /// let device = ReverseTunnelServer::builder(Endpoint::from_static("http://gateway.example:50051"))
    ///     .credentials(|attempt| async move {
    ///         let refused = attempt.last_error().is_some_and(LinkError::is_refusal);
    ///         let token = format!("Bearer {}", token(refused).await?);
    ///         let token = token.parse().map_err(|_| Status::internal("no legal token"))?;
    ///         let mut metadata = MetadataMap::new();
    ///         metadata.insert("authorization", token);
    ///         Ok(metadata)
    ///     });
    /// # let _ = device;
    /// ```
    pub fn credentials<F, Fut>(mut self, credentials: F) -> Self
    where
        F: Fn(Attempt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<MetadataMap, Status>> + Send + 'static,
    {
        self.settings.credentials.set_hook(credentials);
        self
    }

    /// Sets windows, limits and timeouts of the tunnels. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.settings.config = config;
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

    /// How long a gateway has to accept a tunnel, from the connection to the response headers,
    /// and how long the hook for credentials has before that. Default: 20 s.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.settings.open_timeout = timeout;
        self
    }

    /// How long to wait between attempts. Default: [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// How long calls in flight have at a gateway that stood in, when the own gateway is back.
    /// Default: 30 s.
    pub fn stand_in_deadline(mut self, deadline: Duration) -> Self {
        self.settings.stand_in_deadline = deadline;
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
        let calls = CallService::new(self.layer.layer(self.routes.prepare()));
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
