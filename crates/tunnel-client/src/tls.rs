//! The certificates of a gateway, for the handlers behind its tunnels.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio_rustls::rustls;

/// The verified certificates of a gateway, the gateway's own first. In the extensions of the calls that arrive by its
/// tunnels, if the gateway has a [verifier](crate::Gateway::tls_config_with_verifier). Cheap to clone.
///
/// ```
/// use tunnel_client::PeerCertificates;
///
/// fn is_pinned(request: &tonic::Request<()>, pinned: &[u8]) -> bool {
///     let certificates = request.extensions().get::<PeerCertificates>();
///     certificates.is_some_and(|certificates| *certificates.all()[0] == *pinned)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificates(Arc<[CertificateDer<'static>]>);

impl PeerCertificates {
    /// The certificates as they were sent. The first is always there.
    pub fn all(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

/// The certificates of the latest connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted(Arc<Mutex<Option<PeerCertificates>>>);

impl Noted {
    fn set(&self, certificates: PeerCertificates) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificates);
    }

    pub(crate) fn get(&self) -> Option<PeerCertificates> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.clone()
    }
}

/// Notes the certificates that another verifier accepts.
#[derive(Debug)]
pub(crate) struct Noting {
    verifier: Arc<dyn ServerCertVerifier>,
    noted: Noted,
}

impl Noting {
    pub(crate) fn new(verifier: Arc<dyn ServerCertVerifier>, noted: Noted) -> Arc<Self> {
        Arc::new(Self { verifier, noted })
    }
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .verifier
            .verify_server_cert(own, intermediates, name, ocsp, now)?;
        let all = [own].into_iter().chain(intermediates);
        let all = all.map(|certificate| certificate.clone().into_owned());
        self.noted.set(PeerCertificates(all.collect()));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.verifier.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.verifier.root_hint_subjects()
    }
}
