//! The settings of an agent.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use tunnel_fleet::SESSION;

use super::routes::parse_rules;
use crate::connect::Credentials;
use crate::settings::with_file;
use crate::tunnels::KEY_METADATA;

/// What the metadata of a label begins with.
const LABEL: &str = "tunnel-label-";

/// Settings of an agent. A flag `--drain-timeout` is `drain-timeout` in the file and TUNNEL_AGENT_DRAIN_TIMEOUT in the
/// environment. A flag wins over the environment, and the environment over the file.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// A gateway's address for agents: HOST:PORT or a URL. Several: repeat it, or separate them by commas.
    #[arg(
        long,
        env = "TUNNEL_AGENT_GATEWAY",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gateway: Vec<String>,
    /// How many tunnels to each gateway. Behind an address with several gateways of a fleet they go to different ones.
    /// Default: 1.
    #[arg(long, env = "TUNNEL_AGENT_TUNNELS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnels: Option<usize>,
    /// The key that clients call the local server by. Default: the name in the credentials.
    #[arg(long, env = "TUNNEL_AGENT_KEY", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The local server: HOST:PORT, http://, https:// or unix:/PATH. With SERVICE= or PACKAGE= before it, only for
    /// these calls; the longest name wins. [NAME=]tcp:HOST:PORT is a TCP port for `tunnel forward KEY:NAME`; without
    /// NAME its number is its name.
    #[arg(
        long,
        env = "TUNNEL_AGENT_TO",
        value_name = "[PREFIX=]ADDRESS",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) to: Vec<String>,
    /// The certificates (PEM) that those of local servers with https:// must lead to. Default: the system's.
    #[arg(long, env = "TUNNEL_AGENT_TO_CA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_ca: Option<PathBuf>,
    /// A label that the gateway shows beside the key. May be repeated.
    #[arg(
        long,
        env = "TUNNEL_AGENT_LABEL",
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) label: Vec<String>,
    /// How long calls in flight may go on after SIGTERM or ctrl-c, in seconds. Default: 20.
    #[arg(long, env = "TUNNEL_AGENT_DRAIN_TIMEOUT", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drain_timeout: Option<u64>,

    /// The certificates (PEM) that the gateway's certificate must lead to. Turns TLS on. Default: those of the
    /// system, for an address that begins with https://. It is read anew for each connection, as are the others.
    #[arg(
        long,
        env = "TUNNEL_AGENT_CA",
        value_name = "FILE",
        help_heading = "Credentials"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// The own certificate (PEM), for mutual TLS.
    #[arg(
        long,
        env = "TUNNEL_AGENT_CERT",
        value_name = "FILE",
        help_heading = "Credentials"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the own certificate (PEM).
    #[arg(
        long,
        env = "TUNNEL_AGENT_CERT_KEY",
        value_name = "FILE",
        help_heading = "Credentials"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_key: Option<PathBuf>,
    /// The name in the gateway's certificate, if it is not that of the address.
    #[arg(
        long,
        env = "TUNNEL_AGENT_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Credentials"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    /// A file with a bearer token: an opaque one or a JWT.
    #[arg(
        long,
        env = "TUNNEL_AGENT_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Credentials"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// A file with a one-time token, for which the gateway makes the own certificate at the first start: `cert` and
    /// `cert-key` are then written. Not used when they are there.
    #[arg(
        long,
        env = "TUNNEL_AGENT_ENROLL_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Credentials"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enroll_token_file: Option<PathBuf>,
}

impl Settings {
    /// Adds the file and the defaults.
    pub(crate) fn complete(self, file: Option<&Path>) -> Result<Self> {
        let mut settings = match file {
            Some(file) => with_file(&self, file)?,
            None => self,
        };
        settings.drain_timeout.get_or_insert(20);
        Ok(settings)
    }

    /// Whether an agent can run with these.
    pub(crate) fn check(&self) -> Result<()> {
        if self.gateway.is_empty() {
            bail!("no gateway: set --gateway HOST:PORT");
        }
        if self.cert.is_some() != self.cert_key.is_some() {
            bail!("cert and cert-key belong together");
        }
        if self.enroll_token_file.is_some() && (self.cert.is_none() || self.key.is_none()) {
            bail!(
                "enroll-token-file needs key, cert and cert-key: where the certificate is to be written"
            );
        }
        if self.key.is_none() && self.cert.is_none() && self.token_file.is_none() {
            bail!("no key: set --key NAME, or credentials with a name");
        }
        parse_rules(&self.to)?;
        self.metadata()?;
        let mut credentials = self.credentials();
        if self.certificate_to_obtain().is_some() {
            (credentials.cert, credentials.cert_key) = (None, None);
        }
        for gateway in &self.gateway {
            credentials.endpoint(gateway)?;
        }
        credentials.authorization()?;
        Ok(())
    }

    /// The one-time token and the files that are to be written for it, if they are not there.
    pub(crate) fn certificate_to_obtain(&self) -> Option<(&Path, &Path, &Path)> {
        let token = self.enroll_token_file.as_deref()?;
        let (cert, cert_key) = (self.cert.as_deref()?, self.cert_key.as_deref()?);
        (!cert.exists()).then_some((token, cert, cert_key))
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            cert_key: self.cert_key.clone(),
            server_name: self.server_name.clone(),
            token_file: self.token_file.clone(),
        }
    }

    /// The metadata of the agent's tunnels, without the token.
    pub(crate) fn metadata(&self) -> Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        if let Some(key) = &self.key {
            if key.is_empty() || !key.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
                bail!("{key:?} is not a key: a key is printable ASCII");
            }
            metadata.insert(KEY_METADATA, key.parse()?);
        }
        for label in &self.label {
            let (name, value) =
                parse_label(label).with_context(|| format!("--label {label}: not NAME=VALUE"))?;
            metadata.append(name, value);
        }
        // By this gateways know tunnels of one start of the agent, if keys are exclusive.
        let session = format!("{:016x}", fastrand::u64(..));
        metadata.insert(SESSION, session.parse()?);
        Ok(metadata)
    }
}

fn parse_label(label: &str) -> Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let (name, value) = label.split_once('=')?;
    let key = format!("{LABEL}{}", name.to_ascii_lowercase());
    match name.is_empty() {
        true => None,
        false => Some((key.parse().ok()?, value.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            gateway: vec!["127.0.0.1:7000".to_owned()],
            key: Some("device 7".to_owned()),
            to: vec!["127.0.0.1:1".to_owned()],
            label: vec!["Site=Berlin".to_owned()],
            ..Settings::default()
        }
    }

    #[test]
    fn the_key_and_the_labels_are_metadata_of_the_tunnel() {
        let metadata = settings().metadata().expect("legal");
        assert_eq!(metadata.get(KEY_METADATA).expect("a key"), "device 7");
        assert_eq!(
            metadata.get("tunnel-label-site").expect("a label"),
            "Berlin"
        );
        for label in ["site", "=x", "a b=c", "a=\n"] {
            assert!(parse_label(label).is_none(), "{label}");
        }
    }

    #[tokio::test]
    async fn the_settings_that_are_printed_are_a_legal_file() {
        let printed = settings().complete(None).expect("legal");
        let printed = toml::to_string(&printed).expect("legal");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &printed).expect("written");
        let read = Settings::default().complete(Some(file.path()));
        assert_eq!(read.expect("legal").drain_timeout, Some(20), "{printed}");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (settings, missing) in [
            (
                Settings {
                    gateway: vec![],
                    ..settings()
                },
                "--gateway",
            ),
            (
                Settings {
                    key: None,
                    ..settings()
                },
                "--key",
            ),
            (
                Settings {
                    to: vec![],
                    ..settings()
                },
                "--to",
            ),
            (
                Settings {
                    cert: Some("x".into()),
                    ..settings()
                },
                "cert-key",
            ),
        ] {
            let settings = settings.complete(None).expect("legal");
            let error = settings.check().expect_err(missing).to_string();
            assert!(error.contains(missing), "{error}");
        }
    }
}
