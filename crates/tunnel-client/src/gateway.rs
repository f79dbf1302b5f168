//! Gateways: the far ends of tunnels that are kept up, and how to connect to them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
#[cfg(feature = "_tls-any")]
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tonic::body::Body;
#[cfg(feature = "_tls-any")]
use tonic::transport::ClientTlsConfig;
use tonic::transport::{Channel, Endpoint};
use tower::util::{BoxCloneSyncService, ServiceExt as _};
use tower_service::Service;
use tunnel_tonic::TunnelError;

use crate::connection::Connector;
use crate::dial::{BoxError, unusable_channel};
use crate::endpoint::Keepalive;
use crate::lookup::{Lookup, host_and_port};

/// A channel of any kind.
#[derive(Clone)]
pub(crate) struct AnyChannel(
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>,
);

impl Service<http::Request<Body>> for AnyChannel {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

type SiblingFn = dyn Fn(&http::Uri) -> Option<Gateway> + Send + Sync;
type ConnectFn = dyn Fn() -> BoxFuture<'static, Result<AnyChannel, BoxError>> + Send + Sync;

/// The far end of the tunnels of a [`ReverseTunnelServer`](crate::ReverseTunnelServer) or a
/// [`ForwardChannel`](crate::ForwardChannel), and how to connect to it.
///
/// Usually it is made from an [`Endpoint`]. Then each tunnel has its own connection, so that a dead
/// or draining connection is never used again, a load balancer can choose anew for each tunnel, and
/// [`keepalive`](Self::keepalive) applies. The endpoint gets the settings of
/// [`endpoint_for_tunnels`](crate::endpoint_for_tunnels). Configure TLS on the endpoint itself
/// (`Endpoint::tls_config`, with one of the TLS features).
///
/// Handlers behind a tunnel know its gateway as handlers of tonic's server know their client:
/// [`Request::remote_addr`](tonic::Request::remote_addr) is the address of the connection,
/// [`TunnelInfo::key`](crate::TunnelInfo::key) the key that the gateway gave the tunnel. With
#[cfg_attr(
    feature = "_tls-any",
    doc = "[`tls_config_with_verifier`](Self::tls_config_with_verifier)"
)]
#[cfg_attr(not(feature = "_tls-any"), doc = "`tls_config_with_verifier`")]
/// they know its certificates. The address is known for gateways made from an [`Endpoint`], except of a Unix
/// socket, and for channels that put a
/// [`TcpConnectInfo`](tonic::transport::server::TcpConnectInfo) into the extensions of their responses.
///
/// ```
/// use tonic::transport::Endpoint;
/// use tunnel_client::{Gateway, Keepalive};
///
/// let gateway = Gateway::from(Endpoint::from_static("http://gateway.example:50051"))
///     .name("Frankfurt")
///     .keepalive(Keepalive::patient());
/// assert_eq!(gateway.to_string(), "Frankfurt");
/// ```
#[derive(Clone)]
#[must_use = "a gateway does nothing unless it is given to a builder"]
pub struct Gateway {
    name: Option<Arc<str>>,
    dialer: Dialer,
    siblings: Siblings,
}

/// Which siblings of a gateway are followed.
#[derive(Clone)]
enum Siblings {
    /// None.
    Ignored,
    /// Those that can be reached like the gateway itself.
    Alike,
    /// Those that the function returns a gateway for.
    With(Arc<SiblingFn>),
}

/// How a gateway is connected to.
#[derive(Clone)]
enum Dialer {
    Endpoint(Box<Connector>),
    /// Each attempt takes a clone.
    Channel(AnyChannel),
    Connect(Arc<ConnectFn>),
}

impl From<Endpoint> for Gateway {
    /// A new connection for each tunnel. The name is the endpoint's scheme and address. The endpoint's own
    /// local address is not used: see [`local_address`](Self::local_address).
    fn from(endpoint: Endpoint) -> Self {
        Self {
            name: name_of(endpoint.uri()),
            siblings: match endpoint.uri().scheme_str() {
                Some("https") => Siblings::Alike,
                _ => Siblings::Ignored,
            },
            dialer: Dialer::Endpoint(Box::new(Connector::new(endpoint))),
        }
    }
}

impl From<Channel> for Gateway {
    /// All tunnels over one channel, which reconnects when it is called again. Its keepalive is that
    /// of its endpoint: see [`endpoint_for_tunnels`](crate::endpoint_for_tunnels).
    fn from(channel: Channel) -> Self {
        Self::over(channel)
    }
}

/// The name of a URI: without the credentials that it may contain, and without its path.
fn name_of(uri: &http::Uri) -> Option<Arc<str>> {
    let authority = uri.authority()?;
    let host = authority.as_str().rsplit('@').next()?;
    let scheme = uri.scheme_str().unwrap_or("http");
    Some(format!("{scheme}://{host}").into())
}

fn erase<S, B>(channel: S) -> AnyChannel
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let channel = channel
        .map_response(|response: http::Response<B>| response.map(Body::new))
        .map_err(Into::into);
    AnyChannel(BoxCloneSyncService::new(channel))
}

impl Gateway {
    /// Tunnels over a channel of any kind: one with an interceptor, a tower stack, a
    /// [`TunnelChannel`](crate::TunnelChannel) (a tunnel inside a tunnel). The gateway keeps
    /// the channel.
    pub fn over<S, B>(channel: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            name: None,
            dialer: Dialer::Channel(erase(channel)),
            siblings: Siblings::Ignored,
        }
    }

    /// Tunnels over channels that a function makes, one for each attempt: for custom connectors,
    /// addresses that are looked up, certificates that change.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::{Gateway, endpoint_for_tunnels};
    ///
    /// # async fn look_up() -> Result<String, tonic::transport::Error> { Ok(String::new()) }
    /// let gateway = Gateway::connect_with("the nearest", || async {
    ///     let endpoint = Endpoint::from_shared(look_up().await?)?;
    ///     endpoint_for_tunnels(endpoint).connect().await
    /// });
    /// # let _ = gateway;
    /// ```
    pub fn connect_with<F, Fut, S, B, E>(name: impl Into<String>, connect: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, E>> + Send + 'static,
        E: Into<BoxError>,
        S: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let connect = move || {
            let connecting = connect();
            async move { connecting.await.map(erase).map_err(Into::into) }.boxed()
        };
        Self {
            name: Some(name.into().into()),
            dialer: Dialer::Connect(Arc::new(connect)),
            siblings: Siblings::Ignored,
        }
    }

    /// The gateway's name in logs and in [`LinkStatus::gateway`](crate::LinkStatus::gateway).
    /// Default: the endpoint's scheme and address; without an endpoint, a number.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into());
        self
    }

    /// How a vanished gateway is noticed. Only for gateways made from an [`Endpoint`]. Default:
    /// [`Keepalive::default`], within 15 s.
    ///
    /// If the gateway answers that pings are too frequent (`too_many_pings`), they are slowed down to
    /// [`Keepalive::patient`] for a day. If that is only likely, because two connections in a row
    /// broke at a suspicious time, they are slowed down for half an hour.
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        if let Dialer::Endpoint(connector) = &mut self.dialer {
            connector.keepalive = keepalive;
        }
        self
    }

    /// The local address that connections are made from. Only for gateways made from an [`Endpoint`], whose own
    /// setting of this name cannot be read. Default: the system chooses. Not used with a proxy.
    pub fn local_address(mut self, address: Option<IpAddr>) -> Self {
        if let Dialer::Endpoint(connector) = &mut self.dialer {
            connector.local_address = address;
        }
        self
    }

    /// Whether tunnels are opened at siblings of the gateway: the addresses that it tells when it drains
    /// (`set_siblings` of `tunnel-server`), so that its devices have another tunnel before theirs ends. Only for
    /// gateways made from an [`Endpoint`]. Default: true if the endpoint is `https`, otherwise false.
    ///
    /// A sibling is reached with the settings of this gateway, only at another host and port. Its name, also for the
    /// hook of the [credentials](crate::ReverseTunnelServerBuilder::credentials), is its address. Over `https` its certificate must be valid for the name of *this* gateway (that of its
    /// endpoint, or the `domain_name` of its TLS configuration): all gateways of a fleet need one name in common. So
    /// nobody can lead the device to a server that could not also be this gateway. Over plain `http` nothing proves
    /// what is at the address, and the device would tell it its credentials. Addresses of another scheme than the
    /// endpoint's are ignored.
    pub fn follow_siblings(mut self, follow: bool) -> Self {
        self.siblings = match (follow, &self.dialer) {
            (true, Dialer::Endpoint(_)) => Siblings::Alike,
            _ => Siblings::Ignored,
        };
        self
    }

    /// Sets a function that makes a gateway for the address of a sibling, for gateways of any kind, and for siblings
    /// with names of their own. With `None` the sibling is ignored. Replaces
    /// [`follow_siblings`](Self::follow_siblings).
    ///
    /// The addresses come from the gateway, and are not checked. A panic is caught and logged.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::Gateway;
    ///
    /// let gateway = Gateway::from(Endpoint::from_static("http://gateway-1.internal:50051"))
    ///     .siblings_with(|uri| {
    ///         let is_ours = uri.host()?.ends_with(".internal");
    ///         is_ours.then(|| Gateway::from(Endpoint::from(uri.clone())))
    ///     });
    /// # let _ = gateway;
    /// ```
    pub fn siblings_with(
        mut self,
        sibling: impl Fn(&http::Uri) -> Option<Self> + Send + Sync + 'static,
    ) -> Self {
        self.siblings = Siblings::With(Arc::new(sibling));
        self
    }

    /// The sibling at an address, if it is followed. It follows siblings of its own like this gateway.
    pub(crate) fn sibling(&self, uri: &http::Uri) -> Option<Self> {
        match (&self.siblings, &self.dialer) {
            (Siblings::With(sibling), _) => {
                let sibling = catch_unwind(AssertUnwindSafe(|| sibling(uri)));
                sibling.unwrap_or_else(|_| {
                    tracing::error!("siblings_with has panicked");
                    None
                })
            }
            (Siblings::Alike, Dialer::Endpoint(connector)) => {
                let connector = connector.sibling(uri)?;
                Some(Self {
                    name: name_of(connector.uri()),
                    dialer: Dialer::Endpoint(Box::new(connector)),
                    siblings: Siblings::Alike,
                })
            }
            _ => None,
        }
    }

    /// TLS with a verifier of the gateway's certificates, as
    /// [`Endpoint::tls_config_with_verifier`] has it. The calls of its tunnels then have the certificates
    /// ([`PeerCertificates`](crate::PeerCertificates)) in their extensions. Only for gateways made from an
    /// [`Endpoint`].
    ///
    /// With `Endpoint::tls_config` alone tonic shows nobody the certificates. tonic's own
    /// `Request::peer_certs` is for clients of a server, and is `None` in these calls.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tonic::transport::{ClientTlsConfig, Endpoint, Identity};
    /// use tunnel_client::Gateway;
    /// use tunnel_client::rustls::RootCertStore;
    /// use tunnel_client::rustls::client::WebPkiServerVerifier;
    /// # fn example(roots: RootCertStore, own: Identity) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// // Needs a default provider of cryptography in rustls; or use `builder_with_provider`.
    /// let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build()?;
    /// let gateway = Gateway::from(Endpoint::from_static("https://gateway.example"))
    ///     .tls_config_with_verifier(ClientTlsConfig::new().identity(own), verifier)?;
    /// # let _ = gateway;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The configuration is not valid, or has roots beside the verifier.
    #[cfg(feature = "_tls-any")]
    pub fn tls_config_with_verifier(
        mut self,
        config: ClientTlsConfig,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, tonic::transport::Error> {
        if let Dialer::Endpoint(connector) = &mut self.dialer {
            let valid = connector.endpoint.clone();
            valid.tls_config_with_verifier(config.clone(), verifier.clone())?;
            connector.tls = Some((config, verifier));
        }
        Ok(self)
    }

    /// Makes each address of the endpoint's name a gateway of its own, with its own links, while they are found. Only
    /// for gateways made from an [`Endpoint`]. [`Lookup`] says how and when they are looked up. Default: the name is
    /// one gateway, and each connection goes to the first of its addresses that answers.
    ///
    /// TLS verifies the name of the endpoint, and the authority of requests is that name. The gateways are named like
    /// this one, followed by their addresses. Until addresses are known there is one link, which shows why.
    /// [`remove_gateway`](crate::LinksHandle::remove_gateway) with the name of this one removes them all.
    ///
    /// A gateway with an IPv4 and an IPv6 address counts as two: see [`Lookup::filter`]. A proxy is asked to connect to
    /// the address.
    ///
    /// ```
    /// use tonic::transport::Endpoint;
    /// use tunnel_client::{Gateway, Lookup, ReverseTunnelServer};
    ///
    /// let name = Endpoint::from_static("http://gateways.example:50051");
    /// let device = ReverseTunnelServer::builder(Gateway::from(name).each_address(Lookup::system()));
    /// # let _ = device;
    /// ```
    pub fn each_address(mut self, lookup: Lookup) -> Self {
        if let Dialer::Endpoint(connector) = &mut self.dialer {
            connector.lookup = Some(lookup);
        }
        self
    }

    /// Connects through the HTTP CONNECT proxy that the environment names, if any. Only for gateways
    /// made from an [`Endpoint`]. See [`ProxyConnector`](crate::ProxyConnector) for the variables.
    #[cfg(feature = "proxy")]
    pub fn proxy_from_env(mut self) -> Self {
        if let Dialer::Endpoint(connector) = &mut self.dialer {
            connector.proxied = true;
        }
        self
    }

    /// The name, or a name from its place in the list.
    pub(crate) fn name_in_place(&self, place: usize) -> Arc<str> {
        self.name
            .clone()
            .unwrap_or_else(|| format!("gateway {}", place + 1).into())
    }

    /// How the addresses of its name are looked up, if each of them is a gateway.
    pub(crate) fn lookup(&self) -> Option<&Lookup> {
        match &self.dialer {
            Dialer::Endpoint(connector) => connector.lookup.as_ref(),
            Dialer::Channel(_) | Dialer::Connect(_) => None,
        }
    }

    /// The URI of its endpoint.
    pub(crate) fn uri(&self) -> Option<&http::Uri> {
        match &self.dialer {
            Dialer::Endpoint(connector) => Some(connector.endpoint.uri()),
            Dialer::Channel(_) | Dialer::Connect(_) => None,
        }
    }

    /// The address that is dialled, if that is not a name.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let Dialer::Endpoint(connector) = &self.dialer else {
            return None;
        };
        let (host, port) = host_and_port(connector.uri())?;
        Some(SocketAddr::new(host.parse().ok()?, port))
    }

    /// The gateway at one of the addresses of its name.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        let mut gateway = self.clone();
        if let Dialer::Endpoint(connector) = &mut gateway.dialer {
            **connector = connector.at(address);
        }
        gateway.name = Some(format!("{self} ({address})").into());
        gateway
    }

    /// The keepalive of the connections, if this crate makes them.
    pub(crate) fn own_keepalive(&self) -> Option<Keepalive> {
        match &self.dialer {
            Dialer::Endpoint(connector) => Some(connector.keepalive),
            Dialer::Channel(_) | Dialer::Connect(_) => None,
        }
    }

    /// A channel for one tunnel, which must open within the timeout. With `slow` it has the pings of
    /// [`Keepalive::patient`].
    pub(crate) async fn channel(
        &self,
        slow: bool,
        open_timeout: Duration,
    ) -> Result<AnyChannel, TunnelError> {
        match &self.dialer {
            Dialer::Endpoint(connector) => {
                let (channel, seen) = connector.connect_to_any(slow, open_timeout).await?;
                Ok(erase(
                    channel.map_response(move |response| seen.put(response)),
                ))
            }
            Dialer::Channel(channel) => Ok(channel.clone()),
            Dialer::Connect(connect) => connect().await.map_err(unusable_channel),
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("gateway"))
    }
}

/// Shows the name and the kind, because an endpoint may contain credentials.
impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dialer = match &self.dialer {
            Dialer::Endpoint(_) => "endpoint",
            Dialer::Channel(_) => "channel",
            Dialer::Connect(_) => "connector",
        };
        f.debug_struct("Gateway")
            .field("name", &self.name)
            .field("dialer", &dialer)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uri: &'static str) -> String {
        Gateway::from(Endpoint::from_static(uri)).to_string()
    }

    #[test]
    fn a_gateway_is_named_by_its_address_and_never_by_its_credentials() {
        assert_eq!(named("http://gateway:50051"), "http://gateway:50051");
        let secret = "https://device:s3cret@gateway:443/path?token=s3cret";
        assert_eq!(named(secret), "https://gateway:443");
        let gateway = Gateway::from(Endpoint::from_static(secret));
        assert!(!format!("{gateway:?}").contains("s3cret"));
    }

    #[test]
    fn a_sibling_has_another_address_of_the_same_scheme_and_is_followed_over_https() {
        let sibling = |of: Gateway, uri: &'static str| {
            let sibling = of.sibling(&http::Uri::from_static(uri))?;
            let again = sibling.sibling(&http::Uri::from_static(uri));
            assert_eq!(
                again.map(|again| again.to_string()),
                Some(sibling.to_string())
            );
            Some(sibling.to_string())
        };
        let https = || Gateway::from(Endpoint::from_static("https://one:443")).name("one");
        let http = || Gateway::from(Endpoint::from_static("http://one:80"));
        let two = Some("https://two:444".to_owned());
        assert_eq!(sibling(https(), "https://two:444/path"), two);
        for unlike in ["http://two:444", "https://me:pw@two", "two:444", "/"] {
            assert_eq!(sibling(https(), unlike), None, "{unlike}");
        }
        assert_eq!(sibling(https().follow_siblings(false), "https://two"), None);
        assert_eq!(sibling(http(), "http://two"), None);
        let two = Some("http://two".to_owned());
        assert_eq!(sibling(http().follow_siblings(true), "http://two"), two);
        let other = || {
            Gateway::connect_with("other", async || {
                Endpoint::from_static("http://x").connect().await
            })
        };
        assert_eq!(sibling(other().follow_siblings(true), "http://two"), None);
    }

    #[test]
    fn a_sibling_of_a_gateway_at_an_address_of_a_name_is_at_its_own_address() {
        let name = Gateway::from(Endpoint::from_static("https://gateways.example:444"));
        let name = name.each_address(Lookup::system());
        assert_eq!(name.address(), None);
        let first: SocketAddr = "192.0.2.1:444".parse().expect("an address");
        let at_first = name.at(first);
        assert_eq!(at_first.address(), Some(first));
        let sibling = |of: &Gateway, uri| of.sibling(&http::Uri::from_static(uri)).expect("alike");
        for of in [&name, &at_first] {
            let second = sibling(of, "https://192.0.2.2:445");
            assert!(second.lookup().is_none());
            assert_eq!(second.to_string(), "https://192.0.2.2:445");
            let second = second.address().expect("it is no name");
            assert_eq!(second.to_string(), "192.0.2.2:445");
        }
        let third = sibling(&at_first, "https://[2001:db8::1]").address();
        let third = third.map(|address| address.to_string());
        assert_eq!(third.as_deref(), Some("[2001:db8::1]:443"));
        assert_eq!(sibling(&at_first, "https://named").address(), None);
    }

    #[test]
    fn a_hook_makes_siblings_for_a_gateway_of_any_kind() {
        let gateway = |name| {
            Gateway::connect_with(name, async || {
                Endpoint::from_static("http://x").connect().await
            })
        };
        let uri = http::Uri::from_static("https://two");
        let made =
            gateway("one").siblings_with(move |uri| Some(gateway("by hook").name(uri.to_string())));
        let sibling = made.sibling(&uri).map(|sibling| sibling.to_string());
        assert_eq!(sibling, Some("https://two/".to_owned()));
        let panics = gateway("one").siblings_with(|_| panic!("as the test wants it"));
        assert!(panics.sibling(&uri).is_none());
    }

    #[tokio::test]
    async fn a_gateway_without_an_address_is_named_by_its_place() {
        let channel = Endpoint::from_static("http://nowhere").connect_lazy();
        let gateway = Gateway::from(channel);
        assert_eq!(&*gateway.name_in_place(1), "gateway 2");
        assert_eq!(&*gateway.clone().name("mine").name_in_place(1), "mine");
    }

    #[test]
    fn only_connections_of_an_endpoint_have_a_keepalive_of_this_crate() {
        let gateway = Gateway::from(Endpoint::from_static("http://nowhere"));
        assert_eq!(gateway.own_keepalive(), Some(Keepalive::default()));
        let patient = gateway.keepalive(Keepalive::patient());
        assert_eq!(patient.own_keepalive(), Some(Keepalive::patient()));
    }
}
