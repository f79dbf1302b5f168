//! One forward tunnel.

use std::time::Duration;

use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::metadata::MetadataMap;
use tunnel_core::Config;
use tunnel_tonic::{Direction, TunnelChannel, TunnelError};

use crate::dial::{BoxError, OPEN_TIMEOUT, Opening, within};

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

    /// Whether calls over
    /// [`max_concurrent_streams`](tunnel_core::ConfigBuilder::max_concurrent_streams) wait; see
    /// [`TunnelChannel::queue_calls`]. Otherwise they fail at once with RESOURCE_EXHAUSTED. Default:
    /// true.
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// Opens the tunnel and waits until calls can be made. Dropping the future closes it.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]: the channel failed, the far end refused, or it did not answer in time.
    pub async fn open(self) -> Result<TunnelChannel, TunnelError> {
        within(self.open_timeout, async {
            let opening = Opening::new(Direction::Forward, self.metadata, self.config);
            let answer = opening.call(self.channel).await?;
            let tunnel = opening.tunnel();
            tunnel.start(answer.offer, answer.inbound, None, ());
            tunnel.ready().await.map_err(TunnelError::Ended)?;
            Ok(opening.succeeded().channel().queue_calls(self.queue))
        })
        .await
    }
}
