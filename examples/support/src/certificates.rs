//! Certificates, made anew at each start. In production they come from files.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::transport::{Certificate, Identity};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority with this name.
    ///
    /// # Errors
    ///
    /// If no key can be generated.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// The authority's own certificate, for those who trust it.
    pub fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.issuer.pem())
    }

    /// Issues a key and a certificate for a DNS name.
    ///
    /// # Errors
    ///
    /// If it is no DNS name, or no key can be generated.
    pub fn issue(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity::from_pem(certificate.pem(), key.serialize_pem()))
    }
}
