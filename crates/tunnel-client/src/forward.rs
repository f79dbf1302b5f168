//! Forward tunnels: this side dials, and makes the calls.

use std::future::poll_fn;
use std::time::Duration;

use http::header::{HeaderValue, TE};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tunnel_core::Config;
use tunnel_tonic::outer::{OPEN_TUNNEL_PATH, common_offer, put_offer};
use tunnel_tonic::{Direction, NetworkRole, Tunnel, TunnelChannel, TunnelError, TunnelInfo};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the far end has to open a tunnel, unless set otherwise.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens a forward tunnel over a channel.
///
/// The channel is anything a generated client could be made of: a
/// [`Channel`](tonic::transport::Channel), one with an interceptor, a tower stack. The tunnel is
/// one call on it.
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
            queue: false,
        }
    }

    /// Metadata to open the tunnel with, in place of what was set before. Default: none.
    ///
    /// The far end shows it to the handlers of all calls of the tunnel, credentials included.
    /// For a credential that is renewed with each opening give [`new`](Self::new) a channel with
    /// an interceptor.
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.metadata = metadata;
        self
    }

    /// The tunnel's windows, limits and timeouts. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long the far end has until the tunnel is ready. Default: 20 s.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Whether calls past
    /// [`max_concurrent_streams`](tunnel_core::ConfigBuilder::max_concurrent_streams) wait for a
    /// place instead of failing with RESOURCE_EXHAUSTED. Default: false.
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// Opens the tunnel and waits until calls can be made. Dropping the future gives it up.
    ///
    /// # Errors
    ///
    /// [`TunnelError`]: the channel failed, the far end refused, or it did not answer in time.
    pub async fn open(self) -> Result<TunnelChannel, TunnelError> {
        let timeout = self.open_timeout;
        match tokio::time::timeout(timeout, self.open_now()).await {
            Ok(result) => result,
            Err(_) => Err(TunnelError::Timeout(timeout)),
        }
    }

    async fn open_now(mut self) -> Result<TunnelChannel, TunnelError> {
        let info = TunnelInfo::new(Direction::Forward, self.metadata.clone(), None);
        let tunnel = Tunnel::new(NetworkRole::Client, self.config.clone(), info);
        let opening = Opening(Some(&tunnel));
        let request = self.request(&tunnel);
        poll_fn(|cx| self.channel.poll_ready(cx))
            .await
            .map_err(|e| TunnelError::Channel(Status::from_error(e.into())))?;
        let response = self.channel.call(request).await.map_err(failed_call)?;
        let (head, body) = response.into_parts();
        check_response(&head)?;
        let offer = common_offer(&self.config, &head.headers);
        tunnel.start(offer, Body::new(body), None, ());
        tunnel.ready().await.map_err(TunnelError::Ended)?;
        opening.succeeded();
        Ok(tunnel.channel(self.queue))
    }

    fn request(&self, tunnel: &Tunnel) -> http::Request<Body> {
        let mut request = http::Request::new(Body::new(tunnel.outbound()));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = http::Uri::from_static(OPEN_TUNNEL_PATH);
        let headers = request.headers_mut();
        *headers = self.metadata.clone().into_headers();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        put_offer(&self.config, headers);
        request
    }
}

/// Closes a tunnel whose opening is given up. The transport may hold what it sends for as long
/// as it likes; so what it sends has to end.
struct Opening<'a>(Option<&'a Tunnel>);

impl Opening<'_> {
    fn succeeded(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(tunnel) = self.0 {
            tunnel.close();
        }
    }
}

/// An error of the channel itself; one that carries a status of its own was refused by it.
fn failed_call(error: impl Into<BoxError>) -> TunnelError {
    let status = Status::from_error(error.into());
    match status.code() {
        Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal => {
            TunnelError::Channel(status)
        }
        _ => TunnelError::Refused(status),
    }
}

fn check_response(head: &http::response::Parts) -> Result<(), TunnelError> {
    if let Some(status) = tunnel_tonic::outer::refusal(head) {
        return Err(TunnelError::Refused(status));
    }
    Ok(())
}
