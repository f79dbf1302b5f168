//! The agent's part of enrolment.

use anyhow::{Context, Result, bail};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tonic::transport::Channel;

use super::proto::EnrollRequest;
use super::proto::enroll_service_client::EnrollServiceClient;

/// What an agent needs for mutual TLS, as PEM.
pub(crate) struct Enrolled {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolled").finish_non_exhaustive()
    }
}

/// Makes a key pair and spends a token for a certificate.
///
/// The channel must be TLS: the token is sent over it.
///
/// # Errors
///
/// The gateway refuses the token, cannot be reached, or the token is that of another key than `key_name`. In the
/// last case the token is spent.
pub(crate) async fn enroll(channel: Channel, token: &str, key_name: &str) -> Result<Enrolled> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = EnrollRequest {
        token: token.trim().to_owned(),
        csr_pem: params.serialize_request(&key)?.pem()?,
    };
    let response = EnrollServiceClient::new(channel).enroll(request).await;
    let response = response
        .context("the gateway did not enrol this agent")?
        .into_inner();
    if response.key != key_name {
        bail!(
            "the token is for the key {:?}, not {key_name:?}",
            response.key
        );
    }
    Ok(Enrolled {
        certificate: response.certificate_pem,
        private_key: key.serialize_pem(),
    })
}
