//! TLS of a listener, with files that may change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::Conn;
use crate::reload::Reloadable;

/// The files of TLS, all PEM.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// The certificate of the gateway and the intermediate ones.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The CA of client certificates. Without it no certificate is asked for.
    pub(crate) client_ca: Option<PathBuf>,
    /// CRLs for client certificates. Certificates of a CA without a CRL here are not revoked. A CRL counts also after
    /// the time of its next update. Needs `client_ca`.
    pub(crate) client_crl: Option<PathBuf>,
    pub(crate) client_auth: ClientAuth,
}

/// Whether clients must have a certificate, where there is a CA for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// A connection without a certificate fails.
    Required,
    /// Without a certificate there must be another proof, which is for the caller to check. A bad one fails.
    Optional,
}

/// TLS of a listener.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Reloadable<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn open(files: TlsFiles) -> Result<Self> {
        let paths = [&files.cert, &files.key]
            .into_iter()
            .chain(&files.client_ca);
        let crl = files
            .client_crl
            .iter()
            .filter(|_| files.client_ca.is_some());
        let paths = paths.chain(crl).cloned().collect();
        let config = Reloadable::open(paths, move |contents| {
            // A new configuration has no sessions to resume, so that revoked certificates are not resumed.
            server_config(&files, contents)
        })?;
        Ok(Self { config })
    }

    /// Reads the files again, for new connections. Returns whether they changed.
    ///
    /// # Errors
    ///
    /// A file is absent or illegal. All files stay in use as they were.
    pub(crate) fn reload(&self) -> Result<bool> {
        self.config.reload()
    }

    /// Does the handshake of the server.
    pub(super) async fn accept(&self, conn: Conn) -> io::Result<TlsStream<Conn>> {
        TlsAcceptor::from(self.config.get()).accept(conn).await
    }
}

fn server_config(files: &TlsFiles, contents: &[Vec<u8>]) -> Result<ServerConfig> {
    let [cert, key, rest @ ..] = contents else {
        bail!("no certificate");
    };
    let name = files.cert.display();
    let certs = certificates(cert).with_context(|| name.to_string())?;
    let key_name = files.key.display();
    let key = PrivateKeyDer::from_pem_slice(key)
        .with_context(|| format!("{key_name} is not a private key (PEM)"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match rest {
        [ca, crl @ ..] => {
            builder.with_client_cert_verifier(client_verifier(files, ca, crl.first(), provider)?)
        }
        [] => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certs, key)
        .with_context(|| format!("{name} and {key_name} do not go together"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn client_verifier(
    files: &TlsFiles,
    ca: &[u8],
    crl: Option<&Vec<u8>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let name =
        |path: &Option<PathBuf>| path.as_deref().unwrap_or("".as_ref()).display().to_string();
    let mut roots = RootCertStore::empty();
    for ca in certificates(ca).with_context(|| name(&files.client_ca))? {
        roots.add(ca).with_context(|| name(&files.client_ca))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(crl) = crl {
        let crls: Vec<_> = CertificateRevocationListDer::pem_slice_iter(crl)
            .collect::<Result<_, _>>()
            .with_context(|| name(&files.client_crl))?;
        if crls.is_empty() {
            bail!("{} has no CRL", name(&files.client_crl));
        }
        builder = builder.with_crls(crls).allow_unknown_revocation_status();
    }
    if files.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().with_context(|| name(&files.client_ca))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .context("not PEM")?;
    if certificates.is_empty() {
        bail!("the file has no certificate");
    }
    Ok(certificates)
}
