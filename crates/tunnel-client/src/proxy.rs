//! Connections through HTTP CONNECT proxies.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tower_service::Service;

use crate::dial::BoxError;
use crate::endpoint::tcp_connector;

/// Connects through the HTTP CONNECT proxy that the environment names for an address, or directly if
/// it names none. For [`Endpoint::connect_with_connector`], with and without TLS.
///
/// `HTTPS_PROXY` is for `https` addresses, `HTTP_PROXY` for `http`, `ALL_PROXY` for both. `NO_PROXY`
/// lists hosts, domains and networks that are reached directly. The variables can be in lower case,
/// and mean what they mean to curl. The connection to the proxy has no TLS. A user name and a password
/// in the proxy's URL are sent as Basic authorization. Other kinds of proxies, such as SOCKS, are an
/// error.
///
/// ```no_run
/// # async fn example() -> Result<(), tonic::transport::Error> {
/// use tonic::transport::Endpoint;
/// use tunnel_client::{ProxyConnector, endpoint_for_tunnels};
///
/// let endpoint = endpoint_for_tunnels(Endpoint::from_static("https://gateway.example"));
/// let channel = endpoint.connect_with_connector(ProxyConnector::from_env(&endpoint)).await?;
/// # let _ = channel;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a connector does nothing unless it is given to an endpoint"]
pub struct ProxyConnector {
    proxies: Arc<Matcher>,
    tcp: HttpConnector,
}

impl ProxyConnector {
    /// A connector with the proxies that the environment names now, and the TCP settings of an endpoint, except
    /// its local address.
    pub fn from_env(endpoint: &Endpoint) -> Self {
        Self {
            proxies: Arc::new(Matcher::from_env()),
            tcp: tcp_connector(endpoint),
        }
    }

    #[cfg(test)]
    fn with(proxies: Matcher) -> Self {
        let endpoint = Endpoint::from_static("http://unused");
        Self {
            proxies: Arc::new(proxies),
            ..Self::from_env(&endpoint)
        }
    }
}

/// The address with the port that its scheme implies.
fn with_port(uri: Uri) -> Result<Uri, BoxError> {
    if uri.port().is_some() || uri.scheme_str() != Some("http") {
        return Ok(uri);
    }
    let host = uri.host().unwrap_or_default();
    let authority = format!("{host}:80");
    let mut parts = uri.into_parts();
    parts.authority = Some(authority.parse()?);
    Ok(Uri::from_parts(parts)?)
}

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.intercept(&uri) else {
            return self.tcp.call(uri).map(|io| Ok(io?)).boxed();
        };
        if proxy.uri().scheme_str() != Some("http") {
            let kind = proxy.uri().scheme_str().unwrap_or_default();
            let error = format!("a proxy of the kind {kind:?} is not supported");
            return std::future::ready(Err(error.into())).boxed();
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        async move { Ok(tunnel.call(with_port(uri)?).await?) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
    use tokio::net::TcpListener;

    /// A CONNECT proxy for one connection. Returns what it was asked.
    async fn proxy_one(listener: TcpListener) -> Vec<String> {
        let (client, _) = listener.accept().await.expect("a client comes");
        let mut client = BufReader::new(client);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            client.read_line(&mut line).await.expect("a request");
            match line.trim() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let target = lines[0].split(' ').nth(1).expect("a target");
        let Ok(mut target) = TcpStream::connect(target).await else {
            let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
            return lines;
        };
        let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
        client.write_all(established).await.expect("it is there");
        let _ = copy_bidirectional(&mut client, &mut target).await;
        lines
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn a_connection_goes_through_the_proxy_with_its_credentials() {
        let (proxy, proxy_address) = listen().await;
        let (target, address) = listen().await;
        let proxied = tokio::spawn(proxy_one(proxy));
        let proxies = Matcher::builder().http(format!("http://me:pw@{proxy_address}"));
        let mut connector = ProxyConnector::with(proxies.build());
        let uri: Uri = format!("http://{address}").parse().expect("a URI");
        let connection = connector.call(uri).await.expect("it connects");
        drop(target.accept().await.expect("the proxy connects"));
        drop(connection);
        let asked = proxied.await.expect("no panic");
        assert_eq!(asked[0], format!("CONNECT {address} HTTP/1.1"));
        let authorization = "proxy-authorization: basic bwu6chc=";
        assert!(
            asked
                .iter()
                .any(|line| line.to_lowercase() == authorization)
        );
    }

    #[tokio::test]
    async fn addresses_in_no_proxy_are_connected_to_directly() {
        let (target, address) = listen().await;
        let proxies = Matcher::builder().all("http://127.0.0.1:1").no("127.0.0.1");
        let mut connector = ProxyConnector::with(proxies.build());
        let uri: Uri = format!("http://{address}").parse().expect("a URI");
        let _connection = connector.call(uri).await.expect("it connects");
        target.accept().await.expect("it is the client");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_or_is_of_another_kind_is_an_error() {
        let (proxy, proxy_address) = listen().await;
        let proxied = tokio::spawn(proxy_one(proxy));
        let proxies = Matcher::builder().all(format!("http://{proxy_address}"));
        let mut connector = ProxyConnector::with(proxies.build());
        let nobody = Uri::from_static("http://127.0.0.1:1");
        assert!(connector.call(nobody.clone()).await.is_err());
        proxied.await.expect("no panic");
        let proxies = Matcher::builder().all("socks5://127.0.0.1:1");
        let error = ProxyConnector::with(proxies.build()).call(nobody).await;
        assert!(
            error
                .expect_err("no such kind")
                .to_string()
                .contains("socks5")
        );
    }

    #[test]
    fn an_address_without_a_port_has_that_of_its_scheme() {
        let of = |uri| with_port(Uri::from_static(uri)).expect("legal").to_string();
        assert_eq!(of("http://gateway/"), "http://gateway:80/");
        assert_eq!(of("http://gateway:1/"), "http://gateway:1/");
        assert_eq!(of("https://gateway/"), "https://gateway/");
    }
}
