//! The settings of links, among them the metadata and credentials of each attempt, and the setters that
//! their builders share.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tunnel_core::Config;
use tunnel_tonic::TunnelError;
use tunnel_tonic::telemetry::InjectTrace;

use super::backoff::Backoff;
use super::status::DownReason;
use crate::dial::OPEN_TIMEOUT;

/// How long calls in flight may go on in a tunnel that was replaced.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of links.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tunnels_per_gateway: usize,
    pub(crate) credentials: Credentials,
    pub(crate) config: Config,
    pub(crate) open_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) drain_timeout: Duration,
    pub(crate) max_tunnel_age: Option<Duration>,
    /// Of the calls made through forward tunnels.
    pub(crate) inject: Option<InjectTrace>,
    pub(crate) send: Option<CompressionEncoding>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tunnels_per_gateway: 1,
            credentials: Credentials::default(),
            config: Config::default(),
            open_timeout: OPEN_TIMEOUT,
            backoff: Backoff::default(),
            drain_timeout: DRAIN_TIMEOUT,
            max_tunnel_age: None,
            inject: None,
            send: None,
        }
    }
}

/// An attempt to open a tunnel, as the hook of
/// [`credentials`](crate::ReverseTunnelServerBuilder::credentials) sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub(crate) gateway: Arc<str>,
    pub(crate) number: u64,
    pub(crate) last_down_reason: Option<DownReason>,
}

impl Attempt {
    /// The name of the gateway.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The number of this attempt of its link, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Why the link's last attempt failed, or its last tunnel ended, if it had any. After
    /// UNAUTHENTICATED, discard cached credentials.
    pub fn last_down_reason(&self) -> Option<&DownReason> {
        self.last_down_reason.as_ref()
    }
}

type Hook = dyn Fn(Attempt) -> BoxFuture<'static, Result<MetadataMap, Status>> + Send + Sync;

/// Fixed metadata, and a hook for metadata that changes.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) fixed: MetadataMap,
    hook: Option<Arc<Hook>>,
}

impl Credentials {
    pub(crate) fn set_hook<F, Fut>(&mut self, hook: F)
    where
        F: Fn(Attempt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<MetadataMap, Status>> + Send + 'static,
    {
        self.hook = Some(Arc::new(move |attempt| hook(attempt).boxed()));
    }

    /// The metadata for an attempt. The hook's values replace fixed ones with the same key.
    pub(crate) async fn for_attempt(
        &self,
        attempt: Attempt,
        timeout: Duration,
    ) -> Result<MetadataMap, TunnelError> {
        let Some(hook) = &self.hook else {
            return Ok(self.fixed.clone());
        };
        // A hook that panics or never returns fails the attempt, not the link.
        let asked = AssertUnwindSafe(async { hook(attempt).await }).catch_unwind();
        let fresh = match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answer)) => answer.map_err(TunnelError::Credentials)?,
            Ok(Err(_panic)) => {
                let status = Status::internal("the credentials hook panicked");
                return Err(TunnelError::Credentials(status));
            }
            Err(_) => {
                let message = format!("the credentials hook did not return within {timeout:?}");
                return Err(TunnelError::Credentials(Status::deadline_exceeded(message)));
            }
        };
        let mut headers = self.fixed.clone().into_headers();
        // Replaces all values of a key that both have.
        headers.extend(fresh.into_headers());
        Ok(MetadataMap::from_headers(headers))
    }
}

/// Leaves out all values.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("hook", &self.hook.is_some())
            .finish_non_exhaustive()
    }
}

/// The setters of a builder with the fields `gateways` and `settings`.
macro_rules! link_settings {
    () => {
        /// Adds a gateway. Tunnels are kept up to each gateway. When one of them drains, fallback
        /// tunnels to the others are opened. [`LinksHandle`](crate::LinksHandle) adds and removes gateways later.
        pub fn gateway(mut self, gateway: impl Into<$crate::Gateway>) -> Self {
            self.gateways.push(gateway.into());
            self
        }

        /// How many tunnels are kept up to each gateway. Default and minimum: 1.
        ///
        /// Each has a connection of its own, so that a load balancer can lead them to several instances of the
        /// gateway. If the instances name themselves (`TunnelServiceHandler::set_instance`), the tunnels are led to
        /// as many of them as possible: where two are at the same instance, another tunnel is opened, and replaces
        /// the younger one if it is elsewhere. Otherwise it is drained. After eight tries in a row the next are made
        /// each 5 to 10 minutes. During a try there is one tunnel more than this number.
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
        /// ([`DownReason::is_refusal`](crate::DownReason::is_refusal)).
        ///
        /// ```
        /// use tonic::Status;
        /// use tonic::metadata::MetadataMap;
        /// use tonic::transport::Endpoint;
        /// use tunnel_client::{DownReason, ReverseTunnelServer};
        ///
        /// # async fn token(fresh: bool) -> Result<String, Status> { Ok(String::new()) }
        /// let device = ReverseTunnelServer::builder(Endpoint::from_static("http://gateway.example:50051"))
        ///     .credentials(|attempt| async move {
        ///         let refused = attempt.last_down_reason().is_some_and(DownReason::is_refusal);
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

        /// Compresses what this end sends through the tunnels, each frame by itself. The feature with the
        /// name of the encoding must be enabled. Default: not compressed.
        ///
        /// Frames below 512 bytes are sent as they are. It pays for compressible messages of a
        /// kilobyte or more, where the network is slower than the compression. The far end must accept
        /// the encoding, or refuses the tunnel with UNIMPLEMENTED. Whether the far end compresses is its
        /// own setting. To compress single calls instead, use the `send_compressed` of generated clients
        /// and servers.
        ///
        /// # Panics
        ///
        /// If tonic has the feature of the encoding, and this crate has not.
        pub fn send_compressed(mut self, encoding: tonic::codec::CompressionEncoding) -> Self {
            tunnel_tonic::outer::check_encoding(encoding);
            self.settings.send = Some(encoding);
            self
        }

        /// The windows, limits and timeouts of the tunnels. Default: [`Config::default`].
        ///
        /// [`Config::default`]: tunnel_core::Config::default
        pub fn config(mut self, config: tunnel_core::Config) -> Self {
            self.settings.config = config;
            self
        }

        /// How long connecting and opening a tunnel may take together, until it is
        /// [connected](crate::LinkState::Connected), and how long the credentials hook may take
        /// before. Default: 20 s.
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
        /// reached its [`max_tunnel_age`](Self::max_tunnel_age), or a fallback tunnel. Default: 30 s.
        pub fn drain_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.drain_timeout = timeout;
            self
        }

        /// The maximum age of a tunnel, after which load balancers can choose anew and certificates are
        /// checked again. The replacement is opened first; then the old tunnel is drained. Each
        /// tunnel's age is drawn between 80 % and 100 %, so that they are not replaced together.
        /// Default: no limit.
        pub fn max_tunnel_age(mut self, age: std::time::Duration) -> Self {
            self.settings.max_tunnel_age = Some(age);
            self
        }
    };
}
pub(crate) use link_settings;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for (key, value) in entries {
            map.append(*key, value.parse().expect("legal"));
        }
        map
    }

    fn attempt() -> Attempt {
        Attempt {
            gateway: "g".into(),
            number: 1,
            last_down_reason: None,
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn the_hooks_metadata_replaces_fixed_metadata() {
        let mut credentials = Credentials {
            fixed: map(&[("token", "old"), ("token", "older"), ("device", "17")]),
            hook: None,
        };
        credentials.set_hook(|_| async { Ok(map(&[("token", "new"), ("token", "newer")])) });
        let merged = credentials.for_attempt(attempt(), TIMEOUT).await;
        let merged = merged.expect("the hook succeeds");
        let tokens: Vec<_> = merged.get_all("token").iter().collect();
        assert_eq!(tokens, ["new", "newer"]);
        assert_eq!(merged.get("device").expect("kept"), "17");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_hangs_or_panics_has_failed() {
        let mut credentials = Credentials::default();
        credentials.set_hook(|_| std::future::pending());
        let error = credentials.for_attempt(attempt(), TIMEOUT).await;
        assert!(matches!(
            error,
            Err(TunnelError::Credentials(status)) if status.code() == tonic::Code::DeadlineExceeded
        ));
        credentials.set_hook(|attempt| {
            assert!(attempt.number() > 1, "as the test wants it");
            async { Ok(MetadataMap::new()) }
        });
        let error = credentials.for_attempt(attempt(), TIMEOUT).await;
        assert!(matches!(
            error,
            Err(TunnelError::Credentials(status)) if status.code() == tonic::Code::Internal
        ));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let credentials = Credentials {
            fixed: map(&[("authorization", "s3cret")]),
            hook: None,
        };
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
