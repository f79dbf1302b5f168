//! How the commands for people reach a gateway: its address, TLS and a token.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::BoxFuture;
use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, TimeoutExpired};
use tower_service::Service;
use tunnel_client::{Gateway, endpoint_for_tunnels};

use crate::tunnels::KEY_METADATA;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS and credentials of a connection to a gateway.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Credentials {
    /// The certificates (PEM) that the gateway's certificate must lead to. Turns TLS on. Default: those of the
    /// system, for an address that begins with https://.
    #[arg(long, env = "TUNNEL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The own certificate (PEM), for mutual TLS.
    #[arg(long, env = "TUNNEL_CERT", value_name = "FILE", requires = "cert_key")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the own certificate (PEM).
    #[arg(long, env = "TUNNEL_CERT_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) cert_key: Option<PathBuf>,
    /// The name in the gateway's certificate, if it is not that of the address.
    #[arg(long, env = "TUNNEL_SERVER_NAME", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// A file with a bearer token: an opaque one or a JWT. It is read anew for each connection.
    #[arg(long, env = "TUNNEL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl Credentials {
    /// An endpoint at an address, which is HOST:PORT or a URL.
    pub(crate) fn endpoint(&self, address: &str) -> Result<Endpoint> {
        let secure = match address.split_once("://") {
            Some(("http", _)) if self.ca.is_some() || self.cert.is_some() => {
                bail!("{address} is not TLS, but there are certificates for it: say https://")
            }
            Some(("http", _)) => false,
            Some(("https", _)) => true,
            Some((scheme, _)) => bail!("{address}: {scheme} is neither http nor https"),
            None => self.ca.is_some() || self.cert.is_some(),
        };
        let url = match (address.contains("://"), secure) {
            (true, _) => address.to_owned(),
            (false, true) => format!("https://{address}"),
            (false, false) => format!("http://{address}"),
        };
        let endpoint =
            Endpoint::from_shared(url).with_context(|| format!("not an address: {address}"))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        match secure {
            true => Ok(endpoint.tls_config(self.tls()?)?),
            false => Ok(endpoint),
        }
    }

    /// A gateway at an address, for tunnels. Each connection reads the files again.
    pub(crate) fn gateway(&self, address: &str) -> Gateway {
        let (url, credentials) = (address.to_owned(), self.clone());
        Gateway::connect_with(address, move || {
            let endpoint = credentials.endpoint(&url);
            async move {
                let channel = endpoint_for_tunnels(endpoint?).connect().await;
                channel.map_err(|error| anyhow::anyhow!("cannot connect: {}", cause(&error)))
            }
        })
    }

    /// The settings of TLS.
    pub(crate) fn tls(&self) -> Result<ClientTlsConfig> {
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(ca) => tls.ca_certificate(ca_certificate(ca)?),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.cert_key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name);
        }
        Ok(tls)
    }

    /// The value of the metadata `authorization`, if there is a token.
    pub(crate) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let token = String::from_utf8(read(file)?)
            .with_context(|| format!("{} is not text", file.display()))?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .with_context(|| format!("{} has no token", file.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Where a gateway answers, for the commands that call through it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The gateway's address for clients: HOST:PORT, or a URL.
    #[arg(
        long,
        env = "TUNNEL_GATEWAY",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7001"
    )]
    pub(crate) gateway: String,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
}

impl ConnectArgs {
    /// A connection to the gateway for the calls to one key. It is made with the first call, and again when it is
    /// lost.
    pub(crate) fn lazy_key_channel(&self, key: &str) -> Result<KeyChannel> {
        let endpoint = self.credentials.endpoint(&self.gateway)?;
        let endpoint = endpoint_for_calls(endpoint);
        let key = HeaderValue::from_str(key).with_context(|| format!("{key:?} is not a key"))?;
        Ok(KeyChannel {
            channel: NamedChannel::new(
                endpoint.connect_lazy(),
                "this command",
                format!("the gateway at {}", self.gateway),
            ),
            key,
            credentials: Arc::new(self.credentials.clone()),
        })
    }
}

/// A channel to a gateway whose calls go to one key, with the own token. The token is read for each call.
#[derive(Clone, Debug)]
pub(crate) struct KeyChannel {
    channel: NamedChannel,
    key: HeaderValue,
    credentials: Arc<Credentials>,
}

impl Service<http::Request<Body>> for KeyChannel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let headers = request.headers_mut();
        headers.insert(KEY_METADATA, self.key.clone());
        match self.credentials.authorization() {
            Ok(Some(token)) => {
                if let Ok(mut token) = HeaderValue::from_bytes(token.as_bytes()) {
                    token.set_sensitive(true);
                    headers.insert(header::AUTHORIZATION, token);
                }
            }
            Ok(None) => {}
            Err(error) => {
                let status = Status::unavailable(format!("no token for the gateway: {error:#}"));
                return Box::pin(async { Err(status) });
            }
        }
        self.channel.call(request)
    }
}

/// A channel that names its server when it cannot be reached, or the connection breaks: UNAVAILABLE with one
/// sentence.
#[derive(Clone, Debug)]
pub(crate) struct NamedChannel {
    channel: Channel,
    name: Arc<Name>,
}

#[derive(Debug)]
struct Name {
    caller: &'static str,
    server: String,
    /// Whether the last call could not reach the server. Only changes are logged.
    away: AtomicBool,
}

impl NamedChannel {
    /// `caller` begins the sentence. `server` is such as "the gateway at 127.0.0.1:7001".
    pub(crate) fn new(channel: Channel, caller: &'static str, server: String) -> Self {
        Self {
            channel,
            name: Arc::new(Name {
                caller,
                server,
                away: AtomicBool::new(false),
            }),
        }
    }
}

impl Name {
    fn status(&self, error: tonic::transport::Error) -> Status {
        let Name { caller, server, .. } = self;
        if sources(&error).any(|error| error.is::<TimeoutExpired>()) {
            // The deadline of the call, for which tonic says CANCELLED.
            let message = format!("{server} did not answer within the call's deadline");
            return Status::deadline_exceeded(message);
        }
        let cause = cause(&error);
        let status = Status::from_error(Box::new(error));
        match status.code() {
            Code::Unavailable => {
                let message = format!("{caller} cannot reach {server}: {cause}");
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{message}");
                }
                Status::unavailable(message)
            }
            // CANCELLED: it broke before the call was sent.
            Code::Unknown | Code::Cancelled => self.broken(&cause),
            _ => status,
        }
    }

    /// The status of a body that has failed. Resets of a single call stay as they are.
    fn status_of_body(&self, status: Status) -> Status {
        match (status.code(), status.source()) {
            (Code::Unknown, Some(source)) => self.broken(&cause(source)),
            _ => status,
        }
    }

    fn broken(&self, cause: &str) -> Status {
        let Name { caller, server, .. } = self;
        Status::unavailable(format!("{caller} has lost {server}: {cause}"))
    }
}

impl Service<http::Request<Body>> for NamedChannel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Status>> {
        let ready = self.channel.poll_ready(cx);
        ready.map_err(|error| self.name.status(error))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = self.name.clone();
        let calling = self.channel.call(request);
        Box::pin(async move {
            let response = calling.await.map_err(|error| name.status(error))?;
            if name.away.swap(false, Ordering::Relaxed) {
                tracing::info!("{} reaches {} again", name.caller, name.server);
            }
            Ok(response
                .map(|body| Body::new(body.map_err(move |status| name.status_of_body(status)))))
        })
    }
}

/// An error and its sources.
fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

/// The last source of an error, without the number of the operating system, and with what often is the reason.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let Some(last) = sources(error).last() else {
        return String::new();
    };
    let cause = match last.downcast_ref::<std::io::Error>() {
        Some(io) if io.raw_os_error().is_some() && io.kind().to_string() != "other error" => {
            io.kind().to_string()
        }
        _ => last.to_string(),
    };
    if cause.contains("InvalidContentType") {
        return "it does not speak TLS: say http://, and no --ca".to_owned();
    }
    if cause.contains("frame with invalid size") {
        return "it does not speak plaintext HTTP/2; if it speaks TLS, say --ca or https://"
            .to_owned();
    }
    cause
}

/// Sets an endpoint up for calls that somebody else reads: as many unread ones as fit into the window of the connection
/// do not stop the others.
pub(crate) fn endpoint_for_calls(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size((1 << 31) - 1)
        .tcp_nodelay(true)
}

/// The certificates of a file, which others must lead to.
pub(crate) fn ca_certificate(file: &Path) -> Result<Certificate> {
    let pem = read(file)?;
    if !CertificateDer::pem_slice_iter(&pem).any(|found| found.is_ok()) {
        bail!("{} has no certificate in PEM", file.display());
    }
    Ok(Certificate::from_pem(pem))
}

/// Reads a file, and names it in the error.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
