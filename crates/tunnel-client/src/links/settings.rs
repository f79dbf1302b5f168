//! The settings of links, and the setters that their builders share.

use std::time::Duration;

use tunnel_core::Config;

use super::Credentials;
use crate::Backoff;
use crate::dial::OPEN_TIMEOUT;

/// How long calls in flight may go on in a tunnel that was replaced.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// The settings of links.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tunnels_per_gateway: usize,
    pub(crate) credentials: Credentials,
    pub(crate) config: Config,
    pub(crate) open_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) drain_deadline: Duration,
    pub(crate) max_age: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tunnels_per_gateway: 1,
            credentials: Credentials::default(),
            config: Config::default(),
            open_timeout: OPEN_TIMEOUT,
            backoff: Backoff::default(),
            drain_deadline: DRAIN_DEADLINE,
            max_age: None,
        }
    }
}

/// The setters of a builder with the fields `gateways` and `settings`.
macro_rules! link_settings {
    () => {
        /// Adds a gateway. Tunnels are kept up to each gateway. When one of them drains, fallback
        /// tunnels to the others are opened.
        pub fn gateway(mut self, gateway: impl Into<$crate::Gateway>) -> Self {
            self.gateways.push(gateway.into());
            self
        }

        /// How many tunnels are kept up to each gateway. Default and minimum: 1.
        pub fn tunnels_per_gateway(mut self, count: usize) -> Self {
            self.settings.tunnels_per_gateway = count.max(1);
            self
        }

        /// The metadata to open tunnels with; replaces what was set before. Default: none.
        ///
        /// The far end shows it to the handlers and callers of the tunnel.
        pub fn metadata(mut self, metadata: tonic::metadata::MetadataMap) -> Self {
            self.settings.credentials.fixed = metadata;
            self
        }

        /// A hook for metadata, called before each attempt to open a tunnel, for example for tokens
        /// that expire. Its values replace those of [`metadata`](Self::metadata) with the same keys.
        /// Default: none.
        ///
        /// If the hook fails, panics or takes longer than [`open_timeout`](Self::open_timeout), the
        /// attempt has failed. Its status counts like one of the gateway
        /// ([`LinkError::is_refusal`](crate::LinkError::is_refusal)).
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
            F: Fn($crate::Attempt) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<tonic::metadata::MetadataMap, tonic::Status>>
                + Send
                + 'static,
        {
            self.settings.credentials.set_hook(credentials);
            self
        }

        /// The windows, limits and timeouts of the tunnels. Default: [`Config::default`].
        ///
        /// [`Config::default`]: tunnel_core::Config::default
        pub fn config(mut self, config: tunnel_core::Config) -> Self {
            self.settings.config = config;
            self
        }

        /// How long connecting and opening a tunnel may take together, and how long the credentials
        /// hook may take before. Default: 20 s.
        pub fn open_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.open_timeout = timeout;
            self
        }

        /// The time between attempts. Default: [`Backoff::default`](crate::Backoff).
        pub fn backoff(mut self, backoff: $crate::Backoff) -> Self {
            self.settings.backoff = backoff;
            self
        }

        /// How long calls in flight may go on in a tunnel that this end has replaced: a tunnel that has
        /// reached its [`max_age`](Self::max_age), or a fallback tunnel. Default: 30 s.
        pub fn drain_deadline(mut self, deadline: std::time::Duration) -> Self {
            self.settings.drain_deadline = deadline;
            self
        }

        /// The maximum age of a tunnel, after which load balancers can choose anew and certificates are
        /// checked again. The replacement is opened first; then the old tunnel is drained. Each
        /// tunnel's age is drawn between 80 % and 100 %, so that they are not replaced together.
        /// Default: no limit.
        pub fn max_age(mut self, age: std::time::Duration) -> Self {
            self.settings.max_age = Some(age);
            self
        }
    };
}
pub(crate) use link_settings;
