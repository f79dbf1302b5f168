//! Forward tunnels: this side dials and makes the calls, through one tunnel or a channel that keeps
//! tunnels up.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower_service::Service;
use tunnel_core::Config;
use tunnel_tonic::outer::check_encoding;
use tunnel_tonic::pool::{
    Balance, CallOptions, Pool, PooledCall, SUSPECT_AFTER, Tunnels, WhenNoTunnel, explained,
    not_sent,
};
use tunnel_tonic::telemetry::InjectTrace;
use tunnel_tonic::{Direction, ResponseBody, TunnelChannel, TunnelError, TunnelId, TunnelInfo};

use crate::dial::{Accepted, BoxError, OPEN_TIMEOUT, dial, not_opened, with_timeout};
use crate::gateway::Gateway;
use crate::links::{DownReason, LinkStatus, LinksHandle, Purpose, Settings, Shared, link_settings};

/// Opens a forward tunnel over a channel.
///
/// The channel is anything that a generated client accepts: a
/// [`Channel`](tonic::transport::Channel), one with an interceptor, a tower stack. The tunnel is one
/// call on it.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before open()"]
pub struct ForwardTunnel<T> {
    channel: T,
    metadata: MetadataMap,
    config: Config,
    open_timeout: Duration,
    queue: bool,
    send: Option<CompressionEncoding>,
    inject: Option<InjectTrace>,
}

impl<T> ForwardTunnel<T>
where
    T: GrpcService<Body>,
    T::Error: Into<BoxError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    /// A tunnel over a channel, with the default settings.
    pub fn new(channel: T) -> Self {
        Self {
            channel,
            metadata: MetadataMap::new(),
            config: Config::default(),
            open_timeout: OPEN_TIMEOUT,
            queue: true,
            inject: None,
            send: None,
        }
    }

    /// The metadata to open the tunnel with; replaces what was set before. Default: none.
    ///
    /// The far end shows it to the handlers of all calls of the tunnel, including credentials. For a
    /// credential that changes with each opening, use a channel with an interceptor.
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.metadata = metadata;
        self
    }

    /// The tunnel's windows, limits and timeouts. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long opening may take until the tunnel is ready. Default: 20 s. The wait for the far end's
    /// settings, a part of it, is limited by
    /// [`settings_timeout`](tunnel_core::ConfigBuilder::settings_timeout).
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Compresses what this end sends through the tunnel, each frame by itself. The feature with the
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
    pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
        check_encoding(encoding);
        self.send = Some(encoding);
        self
    }

    /// Whether calls over
    /// [`max_concurrent_streams`](tunnel_core::ConfigBuilder::max_concurrent_streams) wait; see
    /// [`TunnelChannel::queue_calls`]. Otherwise they fail at once with RESOURCE_EXHAUSTED. Default:
    /// true.
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// Sets a function that is called with the span of each call made and the metadata to add to it, for
    /// example a trace context. Default: none.
    ///
    /// The spans then have the level `info` instead of `debug`. The function must not block. A panic is caught
    /// and logged.
    pub fn inject_trace(
        mut self,
        inject: impl Fn(&tracing::Span, &mut http::HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.inject = Some(InjectTrace::new(inject));
        self
    }

    /// Opens the tunnel and waits until calls can be made. Dropping the future closes it.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]: the channel failed, the far end refused, or it did not answer in time.
    pub async fn open(self) -> Result<TunnelChannel, TunnelError> {
        let info = TunnelInfo::new(Direction::Forward, self.metadata, None, None);
        let opened = with_timeout(self.open_timeout, async {
            let Accepted {
                tunnel,
                inbound,
                offer,
                body,
                ..
            } = dial(info, self.config, self.send, self.channel).await?;
            if let Some(inject) = self.inject {
                tunnel.tunnel().inject_trace(inject);
            }
            inbound.start(offer, body, None, ());
            tunnel.tunnel().ready().await?;
            Ok(tunnel.keep().channel().queue_calls(self.queue))
        })
        .await;
        opened.inspect_err(|error| not_opened(Direction::Forward, error))
    }
}

/// The response of a call through a [`ForwardChannel`]: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub type ForwardResponseFuture = PooledCall<ForwardChannel>;

/// A channel over a forward tunnel that is kept up, for long-lived clients.
///
/// Clones are cheap and share the tunnel. Any generated client takes one, with and without an
/// interceptor. When the last clone is dropped the tunnel is drained: calls in flight go on.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tonic::transport::Endpoint;
/// use tunnel_client::ForwardChannel;
///
/// let channel = ForwardChannel::builder(Endpoint::from_static("http://127.0.0.1:50051"))
///     .max_tunnel_age(Duration::from_secs(3600))
///     .connect()
///     .await?;
/// // Any generated client takes a clone: EchoServiceClient::new(channel.clone())
/// # let _ = channel;
/// # Ok(())
/// # }
/// ```
///
/// # What is kept up
///
/// A lost tunnel is opened again over a new connection, with [`Backoff`](crate::Backoff) after failed
/// attempts. A tunnel that its backend drains is replaced at once. A tunnel that has reached its
/// [`max_tunnel_age`](ForwardChannelBuilder::max_tunnel_age) is replaced before it is drained. Calls in flight
/// finish in their tunnel. With several tunnels
/// ([`tunnels_per_gateway`](ForwardChannelBuilder::tunnels_per_gateway), or several gateways), each
/// call goes to the one of two random tunnels with fewer calls in flight. [`handle`](Self::handle)
/// shows the state of all tunnels.
///
/// # When a tunnel is lost
///
/// Calls that were sent and not answered fail with UNAVAILABLE; they may have been processed. A call
/// that was certainly not processed is retried on the next tunnel, if its request fits
/// [`retry_buffer_limit`](ForwardChannelBuilder::retry_buffer_limit).
///
/// A call without a tunnel waits as [`WhenNoTunnel`] says; its deadline and its cancellation work
/// meanwhile. By default it behaves as with tonic's channel: it waits until an attempt that began
/// after the call has failed, and then fails with UNAVAILABLE or the status of the refusal. While
/// calls wait, the time between attempts is at most [`Backoff::initial`](crate::Backoff::initial).
///
/// # Which backend
///
/// All calls of one tunnel reach one backend. Behind a load balancer the next tunnel may reach another
/// backend, and a new tunnel [id](crate::TunnelInfo::id) shows that:
/// [`ServedBy`](crate::ServedBy) in the extensions of a response names the call's tunnel, and
/// [`LinkState::Connected`](crate::LinkState::Connected) the tunnel that is open. For calls that must
/// not reach another backend use one of [`tunnels`](Self::tunnels): they fail when it has ended.
#[derive(Clone)]
#[must_use = "dropping the last clone drains the tunnels"]
pub struct ForwardChannel {
    owner: Arc<Owner>,
    suspect_after: Duration,
    options: CallOptions,
}

/// What the clones of a channel share.
struct Owner {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// The builder of a channel; from [`ForwardChannel::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ForwardChannelBuilder {
    gateways: Vec<Gateway>,
    settings: Settings,
    suspect_after: Duration,
    options: CallOptions,
}

impl ForwardChannelBuilder {
    link_settings!();

    /// Sets a function that is called with the span of each call made and the metadata to add to it, for
    /// example a trace context. Default: none.
    ///
    /// The spans then have the level `info` instead of `debug`. The function must not block. A panic is caught
    /// and logged.
    pub fn inject_trace(
        mut self,
        inject: impl Fn(&tracing::Span, &mut http::HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.settings.inject = Some(InjectTrace::new(inject));
        self
    }

    /// What a call does without a tunnel. [`WaitForReady`](crate::WaitForReady) in the extensions of a
    /// request overrides it for one call. Default: [`WhenNoTunnel::WaitForAttempt`].
    pub fn when_no_tunnel(mut self, then: WhenNoTunnel) -> Self {
        self.options.when_no_tunnel = then;
        self
    }

    /// With several tunnels: a tunnel whose backend has been silent for this time, while calls wait for
    /// it, is chosen last until something is received from it. Default: 1 s.
    pub fn suspect_after(mut self, silence: Duration) -> Self {
        self.suspect_after = silence;
        self
    }

    /// How much of a request is kept for a retry on another tunnel, in bytes. A piece that begins below
    /// the limit is kept whole. Zero keeps nothing. Default: 256 KiB.
    pub fn retry_buffer_limit(mut self, bytes: usize) -> Self {
        self.options.retry_buffer_limit = bytes;
        self
    }

    /// Opens a tunnel and returns the channel.
    ///
    /// # Errors
    ///
    /// Why the first attempt failed; with several links, why all of them did. There is no second
    /// attempt: see [`connect_lazy`](Self::connect_lazy).
    pub async fn connect(self) -> Result<ForwardChannel, TunnelError> {
        let channel = self.connect_lazy();
        let mut links = channel.handle().watch();
        let decided = |links: &Vec<LinkStatus>| {
            let connected = links.iter().any(LinkStatus::is_connected);
            connected || links.iter().all(|link| link.last_down_reason().is_some())
        };
        // Fails only when the sender is gone, which the channel keeps.
        let links = links.wait_for(decided).await;
        let links = links.map(|links| links.clone()).unwrap_or_default();
        if links.iter().any(LinkStatus::is_connected) {
            return Ok(channel);
        }
        match links.into_iter().find_map(|link| link.last_down_reason) {
            Some(DownReason::NotOpened(error)) => Err(error),
            Some(DownReason::Ended(reason)) => Err(TunnelError::Ended(reason)),
            None => Ok(channel),
        }
    }

    /// Returns the channel at once, and opens its first tunnel in the background, with backoff.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as tonic's `Endpoint::connect_lazy` does.
    #[must_use = "dropping the channel ends its tunnels"]
    pub fn connect_lazy(self) -> ForwardChannel {
        let pool = Arc::new(Pool::default());
        let shared = Shared::new(self.settings, self.gateways, Purpose::Call(pool.clone()));
        shared.show_links();
        let running = shared.clone();
        tokio::spawn(async move { running.run().await });
        ForwardChannel {
            owner: Arc::new(Owner { shared, pool }),
            suspect_after: self.suspect_after,
            options: self.options,
        }
    }
}

impl ForwardChannel {
    /// A builder for a channel to a gateway: an [`Endpoint`](tonic::transport::Endpoint), or a
    /// [`Gateway`] of another kind.
    pub fn builder(gateway: impl Into<Gateway>) -> ForwardChannelBuilder {
        let mut options = CallOptions::default();
        options.when_no_tunnel = WhenNoTunnel::WaitForAttempt;
        ForwardChannelBuilder {
            gateways: vec![gateway.into()],
            settings: Settings::default(),
            suspect_after: SUSPECT_AFTER,
            options,
        }
    }

    /// Watches and stops the tunnels. It does not keep them open.
    pub fn handle(&self) -> LinksHandle {
        LinksHandle::new(self.owner.shared.clone())
    }

    /// The tunnels that take calls now. Each is a channel to one backend and ends with its tunnel.
    pub fn tunnels(&self) -> Vec<TunnelChannel> {
        self.owner.pool.tunnels()
    }
}

const MISSING: &str = "no forward tunnel is open";

#[doc(hidden)]
impl Tunnels for ForwardChannel {
    fn pick(&self, tried: &HashSet<TunnelId>) -> Option<TunnelChannel> {
        self.owner
            .pool
            .pick(Balance::FewestCalls, self.suspect_after, tried)
    }

    fn subscribe(&self) -> watch::Receiver<()> {
        let joined = self.owner.pool.subscribe();
        self.owner.shared.want();
        joined
    }

    fn runtime(&self) -> Option<&Handle> {
        self.owner.pool.runtime()
    }

    fn is_closing(&self) -> bool {
        self.owner.shared.registry.stop_reason().is_some()
    }

    fn mark(&self) -> u64 {
        self.owner.shared.attempts_begun()
    }

    fn has_failed_since(&self, mark: u64) -> bool {
        self.owner.shared.has_failed_since(mark) || self.owner.shared.all_refused()
    }

    fn no_tunnel(&self, failed: Option<Status>) -> Status {
        if let Some(reason) = self.owner.shared.registry.stop_reason() {
            return not_sent(Code::Unavailable, format!("{MISSING}: {reason}"));
        }
        if let Some(failed) = failed {
            let message = format!(
                "{MISSING} but one that did not take the call: {}",
                failed.message()
            );
            return explained(message, failed);
        }
        match self.owner.shared.last_down_reason() {
            Some(reason) => {
                let code = match &reason {
                    DownReason::NotOpened(error) => Status::from(error.clone()).code(),
                    DownReason::Ended(_) => Code::Unavailable,
                };
                not_sent(code, format!("{MISSING}: {reason}"))
            }
            None => not_sent(Code::Unavailable, MISSING.to_owned()),
        }
    }

    fn no_tunnel_in_time(&self) -> Status {
        let message = format!("{MISSING}, and the call's deadline has passed");
        Status::deadline_exceeded(message)
    }

    fn all_full(&self, full: Status) -> Status {
        let message = format!("the forward tunnels are full: {}", full.message());
        explained(message, full)
    }
}

impl Service<http::Request<Body>> for ForwardChannel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = ForwardResponseFuture;

    /// Always ready: a call reports its own failure.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ForwardResponseFuture {
        PooledCall::new(self.clone(), request, self.options)
    }
}

impl fmt::Debug for ForwardChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardChannel")
            .field("tunnels", &self.tunnels())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
