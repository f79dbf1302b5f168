//! The connection to a gateway, made for one tunnel, and what it shows of the gateway: its address and its
//! certificates.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
#[cfg(feature = "_tls-any")]
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
#[cfg(feature = "_tls-any")]
use tonic::transport::ClientTlsConfig;
use tonic::transport::server::{Connected as _, TcpConnectInfo};
use tonic::transport::{Channel, Endpoint, Error};
use tower::util::{MapRequest, MapResponse};
use tower_service::Service;
use tunnel_tonic::TunnelError;

use crate::dial::{BoxError, unusable_channel};
use crate::endpoint::{Keepalive, endpoint_for_tunnels_with, tcp_connector};
use crate::lookup::Lookup;
#[cfg(feature = "_tls-any")]
use crate::tls::{Noted, Noting};

/// Makes connections with the settings of an endpoint.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) endpoint: Endpoint,
    pub(crate) keepalive: Keepalive,
    pub(crate) local_address: Option<IpAddr>,
    /// Where to connect to, if not to the endpoint's own address.
    target: Option<Uri>,
    /// The URI whose authority requests have, if it is not that of the endpoint.
    origin: Option<Uri>,
    pub(crate) lookup: Option<Lookup>,
    #[cfg(feature = "_tls-any")]
    pub(crate) tls: Option<(ClientTlsConfig, Arc<dyn ServerCertVerifier>)>,
    #[cfg(feature = "proxy")]
    pub(crate) proxied: bool,
}

impl Connector {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            keepalive: Keepalive::default(),
            local_address: None,
            target: None,
            origin: None,
            lookup: None,
            #[cfg(feature = "_tls-any")]
            tls: None,
            #[cfg(feature = "proxy")]
            proxied: false,
        }
    }

    /// Connects to one of the addresses of the name. The requests and TLS have the name.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        let own = self.endpoint.uri();
        let mut parts = own.clone().into_parts();
        parts.authority = address.to_string().parse().ok().or(parts.authority);
        Self {
            target: Uri::from_parts(parts).ok(),
            lookup: None,
            ..self.clone()
        }
    }

    /// Connects to another address, which the requests have too. Everything else stays, also the name that the
    /// certificate must be valid for. `None` for an address of another scheme, or with credentials.
    pub(crate) fn sibling(&self, uri: &Uri) -> Option<Self> {
        let own = self.endpoint.uri();
        let authority = uri.authority()?;
        let is_alike = own.scheme() == uri.scheme() && !may_be_unix(&self.endpoint);
        if !is_alike || authority.as_str().contains('@') {
            return None;
        }
        let target = Uri::builder()
            .scheme(uri.scheme_str()?)
            .authority(authority.clone())
            .path_and_query("/")
            .build()
            .ok()?;
        Some(Self {
            target: Some(target.clone()),
            origin: Some(target),
            lookup: None,
            ..self.clone()
        })
    }

    /// The address that connections are made to.
    pub(crate) fn uri(&self) -> &Uri {
        let own = self.endpoint.uri();
        self.target.as_ref().unwrap_or(own)
    }

    /// Connects for a tunnel that must open within the timeout. With `slow` the connection has the pings of
    /// [`Keepalive::patient`]. If the addresses are to be looked up, they are tried one after the other.
    pub(crate) async fn connect_to_any(
        &self,
        slow: bool,
        open_timeout: Duration,
    ) -> Result<(Channel, Seen), TunnelError> {
        let Some(lookup) = &self.lookup else {
            let connected = self.connect(slow, open_timeout).await;
            return connected.map_err(unusable_channel);
        };
        let found = lookup.look_up(self.endpoint.uri()).await;
        let mut failed = None;
        for address in found?.into_iter().flatten() {
            match self.at(address).connect(slow, open_timeout).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failed = Some(unusable_channel(error)),
            }
        }
        // A lookup that finds nothing has failed.
        Err(failed.unwrap_or(TunnelError::Timeout(open_timeout)))
    }

    async fn connect(&self, slow: bool, open_timeout: Duration) -> Result<(Channel, Seen), Error> {
        let keepalive = match slow {
            true => self.keepalive.slowed(),
            false => self.keepalive,
        };
        let endpoint = endpoint_for_tunnels_with(self.endpoint.clone(), keepalive);
        let endpoint = limit_connect_timeout(endpoint, open_timeout);
        let endpoint = match &self.origin {
            Some(origin) => endpoint.origin(origin.clone()),
            None => endpoint,
        };
        let seen = Seen::default();
        #[cfg(feature = "_tls-any")]
        let endpoint = match &self.tls {
            Some((config, verifier)) => {
                let noting = Noting::new(verifier.clone(), seen.certificates.clone());
                endpoint.tls_config_with_verifier(config.clone(), noting)?
            }
            None => endpoint,
        };
        #[cfg(feature = "proxy")]
        if self.proxied {
            let proxy = crate::ProxyConnector::from_env(&endpoint);
            let channel = endpoint
                .connect_with_connector(seen.noting(self.aimed(proxy)))
                .await?;
            return Ok((channel, seen));
        }
        if may_be_unix(&endpoint) {
            return Ok((endpoint.connect().await?, seen));
        }
        let mut tcp = tcp_connector(&endpoint);
        tcp.set_local_address(self.local_address);
        // With a connector, tonic's timeout also covers TLS.
        let endpoint = endpoint.connect_timeout(open_timeout);
        let channel = endpoint
            .connect_with_connector(seen.noting(self.aimed(tcp)))
            .await?;
        Ok((channel, seen))
    }

    /// A connector that connects to the target.
    fn aimed<C>(&self, connector: C) -> MapRequest<C, impl FnMut(Uri) -> Uri + Clone + use<C>> {
        let target = self.target.clone();
        MapRequest::new(connector, move |uri| target.clone().unwrap_or(uri))
    }
}

/// Limits the connect timeout to half of the open timeout, so that the rest is left for the tunnel.
fn limit_connect_timeout(endpoint: Endpoint, open_timeout: Duration) -> Endpoint {
    let longest = open_timeout / 2;
    let own = endpoint.get_connect_timeout();
    endpoint.connect_timeout(own.map_or(longest, |own| own.min(longest)))
}

/// Whether an endpoint may be of a Unix socket: tonic shows all of these with this URI.
fn may_be_unix(endpoint: &Endpoint) -> bool {
    *endpoint.uri() == "http://tonic"
}

/// What was seen of the far end while a connection was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    addresses: Arc<Mutex<Option<TcpConnectInfo>>>,
    #[cfg(feature = "_tls-any")]
    certificates: Noted,
}

impl Seen {
    /// A connector that notes the addresses of its connections.
    fn noting<C>(
        &self,
        connector: C,
    ) -> MapResponse<C, impl FnMut(TokioIo<TcpStream>) -> TokioIo<TcpStream> + Clone + use<C>>
    where
        C: Service<Uri, Response = TokioIo<TcpStream>>,
        BoxError: From<C::Error>,
    {
        let addresses = self.addresses.clone();
        MapResponse::new(connector, move |io: TokioIo<TcpStream>| {
            let seen = Some(io.inner().connect_info());
            *addresses.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            io
        })
    }

    /// Puts what was seen into the extensions of a response.
    pub(crate) fn put<B>(&self, mut response: http::Response<B>) -> http::Response<B> {
        let extensions = response.extensions_mut();
        let addresses = self.addresses.lock();
        if let Some(addresses) = &*addresses.unwrap_or_else(PoisonError::into_inner) {
            extensions.insert(addresses.clone());
        }
        #[cfg(feature = "_tls-any")]
        if let Some(certificates) = self.certificates.get() {
            extensions.insert(certificates);
        }
        response
    }
}
