//! A certificate authority for one run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The name of the gateway.
const GATEWAY: &str = "localhost";

/// The files of the authority.
pub(crate) struct Certificates {
    directory: PathBuf,
}

fn authority() -> Result<CertificateParams> {
    let mut params = CertificateParams::new([])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "benchmark CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl Certificates {
    /// Writes the certificates of the authority, the gateway, an agent "device" and a client.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        fs::write(
            directory.join("ca.pem"),
            authority()?.self_signed(&key)?.pem(),
        )?;
        fs::write(directory.join("ca-key.pem"), key.serialize_pem())?;
        let this = Self::at(directory);
        // Gateways have a CA of their own, which may be the same one in a measurement.
        fs::copy(this.path("ca"), this.path("hop-ca"))?;
        for name in [GATEWAY, "device", "client"] {
            let (certificate, key) = this.issue(name)?;
            fs::write(this.path(name), certificate)?;
            fs::write(this.path(&format!("{name}-key")), key)?;
        }
        Ok(this)
    }

    /// An authority that was created.
    pub(crate) fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file with this name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name).with_extension("pem")
    }

    /// A certificate and its key.
    pub(crate) fn issue(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::from_pem(&fs::read_to_string(self.path("ca-key"))?)?;
        let issuer = Issuer::new(authority()?, key);
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// TLS of somebody with this certificate and key.
    pub(crate) fn tls(&self, certificate: &str, key: &str) -> Result<ClientTlsConfig> {
        let ca = Certificate::from_pem(fs::read(self.path("ca"))?);
        let identity = Identity::from_pem(certificate, key);
        Ok(ClientTlsConfig::new()
            .domain_name(GATEWAY)
            .ca_certificate(ca)
            .identity(identity))
    }

    /// TLS of the client.
    pub(crate) fn client(&self) -> Result<ClientTlsConfig> {
        let read = |name| fs::read_to_string(self.path(name));
        self.tls(&read("client")?, &read("client-key")?)
    }
}
