//! One attempt to open a tunnel of either direction: a call on a channel, which is accepted or refused.

use std::future::poll_fn;
use std::time::Duration;

use http::header::{HeaderValue, TE};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tunnel_core::{Config, Offer};
use tunnel_tonic::outer::{
    OPEN_REVERSE_TUNNEL_PATH, OPEN_TUNNEL_PATH, common_offer, put_offer, refusal,
};
use tunnel_tonic::{Direction, NetworkRole, Tunnel, TunnelError, TunnelInfo};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The default time within which the far end must open a tunnel.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// A tunnel that is being opened.
///
/// Closes the tunnel when it is dropped before it has [`succeeded`](Self::succeeded), so that the body
/// of the outer call ends even if the transport keeps it.
#[derive(Debug)]
pub(crate) struct Opening {
    tunnel: Tunnel,
    config: Config,
    succeeded: bool,
}

/// The far end's acceptance.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) offer: Offer,
    pub(crate) inbound: Body,
    /// The extensions of the outer response.
    pub(crate) extensions: http::Extensions,
}

impl Opening {
    pub(crate) fn new(direction: Direction, metadata: MetadataMap, config: Config) -> Self {
        let info = TunnelInfo::new(direction, metadata, None, None);
        Self {
            tunnel: Tunnel::new(NetworkRole::Client, config.clone(), info),
            config,
            succeeded: false,
        }
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Makes the outer call.
    pub(crate) async fn call<T>(&self, mut channel: T) -> Result<Answer, TunnelError>
    where
        T: GrpcService<Body>,
        T::Error: Into<BoxError>,
        T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
    {
        let request = self.request();
        poll_fn(|cx| channel.poll_ready(cx))
            .await
            .map_err(unusable_channel)?;
        let response = channel.call(request).await.map_err(failed_call)?;
        let (head, body) = response.into_parts();
        match refusal(&head) {
            Some(error) => Err(error),
            None => Ok(Answer {
                offer: common_offer(&self.config, &head.headers),
                inbound: Body::new(body),
                extensions: head.extensions,
            }),
        }
    }

    fn request(&self) -> http::Request<Body> {
        let mut request = http::Request::new(Body::new(self.tunnel.outbound()));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = http::Uri::from_static(match self.tunnel.info().direction() {
            Direction::Forward => OPEN_TUNNEL_PATH,
            Direction::Reverse => OPEN_REVERSE_TUNNEL_PATH,
        });
        let headers = request.headers_mut();
        *headers = self.tunnel.info().metadata().clone().into_headers();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        put_offer(&self.config, headers);
        request
    }

    /// The tunnel is open, and stays open.
    pub(crate) fn succeeded(mut self) -> Tunnel {
        self.succeeded = true;
        self.tunnel.clone()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.succeeded {
            self.tunnel.close();
        }
    }
}

/// Limits the time of an opening.
pub(crate) async fn within<T>(
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
