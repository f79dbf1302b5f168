//! A local server: how its address is written, and the channel to it.

use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use http::{HeaderValue, header};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tower_service::Service;

use crate::connect::{NamedChannel, ca_certificate, endpoint_for_calls};

/// How long connecting to a local server may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How large the metadata and trailers of a call may be.
const MAX_HEADERS: u32 = 256 << 10;

/// Where a local server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// HOST:PORT, without TLS.
    Plain(String),
    /// HOST:PORT, with TLS.
    Tls(String),
    Unix(PathBuf),
    /// HOST:PORT of any TCP server.
    Tcp(String),
}

impl Address {
    /// Reads HOST:PORT, `http://HOST:PORT`, `https://HOST[:PORT]` or `unix:/PATH`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let host = |host: &str| {
            let host = host.trim_end_matches('/');
            match host.parse::<http::uri::Authority>() {
                Ok(authority) if !authority.host().is_empty() => Ok(host.to_owned()),
                _ => bail!("{text}: not HOST:PORT"),
            }
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                bail!("{text}: the path of a Unix socket begins with /");
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp:") {
            return match address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>())
            {
                Some(Ok(_)) => Ok(Self::Tcp(host(address)?)),
                _ => bail!("{text}: not tcp:HOST:PORT"),
            };
        }
        match text.split_once("://") {
            Some(("http", rest)) => Ok(Self::Plain(host(rest)?)),
            Some(("https", rest)) => Ok(Self::Tls(host(rest)?)),
            Some((scheme, _)) => bail!("{text}: {scheme} is none of http, https and unix"),
            None => {
                let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
                match port {
                    Some(Ok(_)) => Ok(Self::Plain(host(text)?)),
                    _ => bail!("{text}: not HOST:PORT"),
                }
            }
        }
    }

    fn endpoint(&self, ca: Option<&Path>) -> Result<Endpoint> {
        Ok(match self {
            Self::Plain(host) => Endpoint::from_shared(format!("http://{host}"))?,
            Self::Unix(path) => Endpoint::from_shared(format!("unix:{}", path.display()))?,
            Self::Tcp(host) => bail!("{host} is for TCP, not for calls"),
            Self::Tls(host) => {
                let tls = ClientTlsConfig::new();
                let tls = match ca {
                    Some(ca) => tls.ca_certificate(ca_certificate(ca)?),
                    None => tls.with_native_roots(),
                };
                Endpoint::from_shared(format!("https://{host}"))?.tls_config(tls)?
            }
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(host) => f.write_str(host),
            Self::Tls(host) => write!(f, "https://{host}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
        }
    }
}

/// A channel to a local server. It connects with the first call, and again when the connection is lost.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    channel: NamedChannel,
}

impl Target {
    pub(crate) fn new(address: &Address, ca: Option<&Path>) -> Result<Self> {
        // No HTTP/2 pings: gRPC servers end connections for pings that they did not ask for.
        let endpoint = endpoint_for_calls(address.endpoint(ca)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_max_header_list_size(MAX_HEADERS);
        Ok(Self {
            channel: NamedChannel::new(
                endpoint.connect_lazy(),
                "the agent",
                format!("the server at {address}"),
            ),
        })
    }
}

impl Service<http::Request<Body>> for Target {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // Some servers refuse calls without it.
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        self.channel.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_a_url_or_a_unix_socket() {
        let parse = |text| Address::parse(text).expect("legal");
        let plain = |host: &str| Address::Plain(host.to_owned());
        assert_eq!(parse("127.0.0.1:50051"), plain("127.0.0.1:50051"));
        assert_eq!(parse("[::1]:50051"), plain("[::1]:50051"));
        assert_eq!(parse("http://server:1/"), plain("server:1"));
        assert_eq!(parse("https://server"), Address::Tls("server".to_owned()));
        let socket = Address::Unix("/run/x.sock".into());
        assert_eq!(parse("unix:/run/x.sock"), socket);
        assert_eq!(parse("unix:///run/x.sock"), socket);
    }

    #[test]
    fn an_illegal_address_is_refused_with_a_sentence() {
        for (text, reason) in [
            ("server", "not HOST:PORT"),
            (":1", "not HOST:PORT"),
            ("server:http", "not HOST:PORT"),
            ("ftp://server", "ftp is none of"),
            ("unix:x.sock", "begins with /"),
            ("tcp:127.0.0.1", "not tcp:HOST:PORT"),
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
