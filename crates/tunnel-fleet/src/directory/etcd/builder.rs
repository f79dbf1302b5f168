//! The settings of an [`EtcdDirectory`](super::EtcdDirectory).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
use tonic::transport::ClientTlsConfig;
use tonic::transport::{Endpoint, Error};

use super::EtcdDirectory;
use super::client::{Client, Credentials};
use super::endpoints::Endpoints;

/// The most bytes of one call or watch that are on their way here. A watch that is not polled holds up to so many.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all calls and watches together. Much more than for one, so that watches that are not polled do not
/// stop the rest.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Settings of an [`EtcdDirectory`], from [`EtcdDirectory::builder`].
#[derive(Clone)]
#[must_use]
pub struct EtcdBuilder {
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    tls: Option<ClientTlsConfig>,
    request_timeout: Duration,
}

impl fmt::Debug for EtcdBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // tonic's settings for TLS would show the private key.
        f.debug_struct("EtcdBuilder")
            .field("endpoints", &self.endpoints)
            .field("credentials", &self.credentials)
            .field("tls", &self.has_tls())
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

/// Why an [`EtcdDirectory`] cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdConfigError {
    /// There is no endpoint.
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    /// An endpoint is no URL with `http://` or `https://`.
    #[error("{0:?} is no endpoint of etcd: it must be a URL with http:// or https://")]
    Endpoint(String),
    /// An endpoint with `https://` needs TLS settings, and one with `http://` must not have them.
    #[error(
        "{0:?} does not agree with the TLS settings: with them all endpoints are https://, without them http://"
    )]
    Scheme(String),
    /// The TLS settings make no sense, for example a certificate that cannot be read.
    #[error("the TLS settings are wrong")]
    Tls(#[source] Error),
}

impl EtcdBuilder {
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            credentials: None,
            #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
            tls: None,
            request_timeout: Duration::from_secs(2),
        }
    }

    /// A user of etcd and its password. The token that etcd gives for them is renewed when etcd does not take it any
    /// more. They are not used where etcd has authentication disabled. Default: none.
    ///
    /// Use them with TLS only: the password is sent as it is.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials {
            user: name.into(),
            password: password.into(),
        });
        self
    }

    /// TLS. All endpoints must be `https://` then. For mutual TLS give the settings an identity. Default: none.
    ///
    /// Unless the settings say otherwise, the certificate must be valid for the name or the address in the endpoint.
    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    pub fn tls(mut self, settings: ClientTlsConfig) -> Self {
        self.tls = Some(settings);
        self
    }

    /// How long a request may take, including connecting, failing over and authenticating. After that it fails with
    /// [`Unavailable`](crate::directory::DirectoryError::Unavailable). Connecting to one endpoint may take half of it.
    /// Default: 2 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Makes the directory. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// If there is no endpoint, or one is not valid, or the TLS settings are not.
    pub fn build(self) -> Result<EtcdDirectory, EtcdConfigError> {
        if self.endpoints.is_empty() {
            return Err(EtcdConfigError::NoEndpoint);
        }
        let endpoints: Result<_, _> = self
            .endpoints
            .iter()
            .map(|url| self.endpoint(url))
            .collect();
        let endpoints = Endpoints::new(endpoints?, self.request_timeout / 2);
        let client = Client::new(endpoints, self.credentials, self.request_timeout);
        Ok(EtcdDirectory {
            client: Arc::new(client),
        })
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, EtcdConfigError> {
        let wrong = || EtcdConfigError::Endpoint(url.to_owned());
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
        let scheme = endpoint.uri().scheme().cloned().ok_or_else(wrong)?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(wrong());
        }
        if self.has_tls() != (scheme == Scheme::HTTPS) {
            return Err(EtcdConfigError::Scheme(url.to_owned()));
        }
        let endpoint = endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
        if let Some(tls) = &self.tls {
            let endpoint = endpoint.tls_config(tls.clone());
            return endpoint.map_err(EtcdConfigError::Tls);
        }
        Ok(endpoint)
    }

    fn has_tls(&self) -> bool {
        #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
        return self.tls.is_some();
        #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
        return false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(endpoints: &[&str]) -> Result<EtcdDirectory, EtcdConfigError> {
        EtcdDirectory::builder(endpoints.iter().copied()).build()
    }

    #[test]
    fn endpoints_are_urls_that_agree_with_the_tls_settings() {
        assert!(build(&["http://127.0.0.1:2379", "http://etcd:2379"]).is_ok());
        assert!(matches!(build(&[]), Err(EtcdConfigError::NoEndpoint)));
        for wrong in ["", "etcd:2379", "etcd", "ftp://etcd"] {
            let error = build(&[wrong]);
            assert!(
                matches!(error, Err(EtcdConfigError::Endpoint(_))),
                "{wrong}"
            );
        }
        let error = build(&["http://etcd:2379", "https://etcd:2379"]);
        assert!(matches!(error, Err(EtcdConfigError::Scheme(url)) if url.starts_with("https")));
    }

    #[test]
    fn a_password_is_not_shown() {
        let builder = EtcdDirectory::builder(["http://etcd:2379"]).user("gate", "secret");
        let shown = format!("{builder:?} {:?}", builder.clone().build());
        assert!(
            shown.contains("gate") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
    #[test]
    fn a_private_key_is_not_shown() {
        let key = "private";
        let identity = tonic::transport::Identity::from_pem("certificate", key);
        let tls = ClientTlsConfig::new().identity(identity);
        let builder = EtcdDirectory::builder(["https://etcd:2379"]).tls(tls.clone());
        let bytes = format!("{:?}", key.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']);
        assert!(format!("{tls:?}").contains(bytes), "tonic shows it");
        let shown = format!("{builder:?}");
        assert!(!shown.contains(key) && !shown.contains(bytes), "{shown}");
    }
}
