//! One attempt to open a tunnel of either direction: a call on a channel, which is accepted or refused.

use std::future::poll_fn;
use std::time::Duration;

use http::header::{HeaderValue, TE};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tunnel_core::{Config, Offer, TUNNEL_ID_HEADER};
use tunnel_tonic::outer::{
    OPEN_REVERSE_TUNNEL_PATH, OPEN_TUNNEL_PATH, check_response, common_offer, instance_of, key_of,
    peer_encoding, put_encodings, put_offer, put_ready, return_spread_of,
};
use tunnel_tonic::{
    Direction, Inbound, NetworkRole, Outbound, Tunnel, TunnelError, TunnelInfo, telemetry,
};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The default time within which the far end must open a tunnel.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Closes a tunnel when it is dropped, so that the body of the outer call ends even if the transport
/// keeps it.
#[derive(Debug)]
pub(crate) struct CloseOnDrop {
    tunnel: Tunnel,
    keep: bool,
}

impl CloseOnDrop {
    pub(crate) fn new(tunnel: Tunnel) -> Self {
        let keep = false;
        Self { tunnel, keep }
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Returns the tunnel, which stays open.
    pub(crate) fn keep(mut self) -> Tunnel {
        self.keep = true;
        self.tunnel.clone()
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if !self.keep {
            self.tunnel.close();
        }
    }
}

/// A tunnel that the far end has accepted, before it is started.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) tunnel: CloseOnDrop,
    pub(crate) inbound: Inbound,
    pub(crate) offer: Offer,
    /// Over how long to spread the return, as the far end says.
    pub(crate) return_spread: Option<Duration>,
    /// The body of the outer response.
    pub(crate) body: Body,
    /// The extensions of the outer response.
    pub(crate) extensions: http::Extensions,
    /// How many instances the gateway has, if it says so.
    pub(crate) instances: Option<usize>,
}

/// Makes the outer call of a new tunnel.
pub(crate) async fn dial<T>(
    info: TunnelInfo,
    config: Config,
    send: Option<CompressionEncoding>,
    mut channel: T,
) -> Result<Accepted, TunnelError>
where
    T: GrpcService<Body>,
    T::Error: Into<BoxError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    let (tunnel, mut outbound, mut inbound) =
        Tunnel::new(NetworkRole::Client, config.clone(), info);
    outbound.compress(send);
    let request = request(tunnel.info(), &config, send, outbound);
    let tunnel = CloseOnDrop::new(tunnel);
    poll_fn(|cx| channel.poll_ready(cx))
        .await
        .map_err(unusable_channel)?;
    let response = channel.call(request).await.map_err(failed_call)?;
    let (head, body) = response.into_parts();
    check_response(&head)?;
    let connection = head.extensions.get::<TcpConnectInfo>();
    let peer = connection.and_then(TcpConnectInfo::remote_addr);
    let (instance, instances) = instance_of(&head.headers).unzip();
    let info = tunnel.tunnel().info();
    info.accepted(peer, key_of(&head.headers), instance);
    inbound.decompress(peer_encoding(&head.headers).map_err(TunnelError::Refused)?);
    Ok(Accepted {
        tunnel,
        inbound,
        offer: common_offer(&config, &head.headers),
        return_spread: return_spread_of(&head.headers),
        body: Body::new(body),
        extensions: head.extensions,
        instances,
    })
}

/// The request of the outer call.
fn request(
    info: &TunnelInfo,
    config: &Config,
    send: Option<CompressionEncoding>,
    outbound: Outbound,
) -> http::Request<Body> {
    let mut request = http::Request::new(Body::new(outbound));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(match info.direction() {
        Direction::Forward => OPEN_TUNNEL_PATH,
        Direction::Reverse => OPEN_REVERSE_TUNNEL_PATH,
    });
    let headers = request.headers_mut();
    *headers = info.metadata().clone().into_headers();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Ok(id) = HeaderValue::from_str(info.shared_id()) {
        headers.insert(TUNNEL_ID_HEADER, id);
    }
    put_offer(config, headers);
    if info.direction() == Direction::Reverse {
        put_ready(headers);
    }
    put_encodings(send, headers);
    request
}

/// Counts a tunnel that was not opened.
pub(crate) fn not_opened(direction: Direction, error: &TunnelError) {
    telemetry::not_opened(direction, NetworkRole::Client, error.name());
}

/// Fails with [`TunnelError::Timeout`] if opening a tunnel takes too long.
pub(crate) async fn with_timeout<T>(
    timeout: Duration,
    opening: impl Future<Output = Result<T, TunnelError>>,
) -> Result<T, TunnelError> {
    match tokio::time::timeout(timeout, opening).await {
        Ok(result) => result,
        Err(_) => Err(TunnelError::Timeout(timeout)),
    }
}

/// The error of a channel that cannot connect or never becomes ready.
pub(crate) fn unusable_channel(error: impl Into<BoxError>) -> TunnelError {
    TunnelError::Channel(Status::from_error(error.into()))
}

/// The error of the outer call. A status from an interceptor or a layer is a refusal. An HTTP/2 error is
/// not, although tonic gives it a code.
fn failed_call(error: impl Into<BoxError>) -> TunnelError {
    let status = Status::from_error(error.into());
    let first = std::error::Error::source(&status);
    let mut sources = std::iter::successors(first, |error| error.source());
    if sources.any(|error| error.is::<h2::Error>()) {
        return TunnelError::Channel(status);
    }
    match status.code() {
        Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal => {
            TunnelError::Channel(status)
        }
        _ => TunnelError::Refused(status),
    }
}
