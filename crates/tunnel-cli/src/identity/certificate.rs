//! Names of certificates, and certificates that are revoked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate};

use super::{Identity, Proof};

/// Which name of a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// The first DNS name among the subject's alternative names. Without a DNS name: the first URI.
    San,
    /// The common name. There must be exactly one.
    Cn,
}

/// The identity of the owner of a certificate, which was verified already.
pub(crate) fn identity(certificate: &CertificateDer<'_>, rule: NameRule) -> Result<Identity> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).context("the certificate is malformed")?;
    let name = match rule {
        NameRule::San => alternative_name(&certificate)?,
        NameRule::Cn => common_name(&certificate)?,
    };
    if name.is_empty() {
        bail!("the name in the certificate is empty");
    }
    let expires = certificate.validity().not_after.timestamp();
    Ok(Identity {
        name: name.into(),
        proof: Proof::Certificate {
            serial: Arc::from(without_zeros(certificate.raw_serial())),
            expires: time(u64::try_from(expires).unwrap_or_default()),
        },
    })
}

fn alternative_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str> {
    let names = certificate
        .subject_alternative_name()
        .context("the subject's alternative names are malformed")?
        .context("the certificate has no alternative names of the subject")?;
    let names = &names.value.general_names;
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let uri = || {
        names.iter().find_map(|name| match name {
            GeneralName::URI(name) => Some(*name),
            _ => None,
        })
    };
    dns.or_else(uri)
        .context("the certificate has neither a DNS name nor a URI")
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().context("the common name is not text"),
        _ => bail!("the certificate does not have exactly one common name"),
    }
}

/// A time in seconds since 1970. Times too late to tell are a thousand years away.
pub(crate) fn time(seconds: u64) -> SystemTime {
    const MILLENNIUM: u64 = 31_557_600_000;
    let exact = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    exact.unwrap_or(SystemTime::UNIX_EPOCH + Duration::from_secs(2 * MILLENNIUM))
}

/// The serial numbers of revoked certificates.
///
/// The signature of the CRL is not verified, and its issuer does not count: the file is the operator's. The same
/// serial number of another CA is revoked too.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    serials: HashSet<Box<[u8]>>,
}

impl Revoked {
    /// Parses CRLs (PEM).
    pub(crate) fn parse(pem: &[u8]) -> Result<Self> {
        let mut serials = HashSet::new();
        let mut found = false;
        for crl in CertificateRevocationListDer::pem_slice_iter(pem) {
            let crl = crl.context("the CRL is not PEM")?;
            let (_, crl) =
                CertificateRevocationList::from_der(&crl).context("the CRL is malformed")?;
            let revoked = crl.iter_revoked_certificates();
            serials.extend(revoked.map(|revoked| without_zeros(revoked.raw_serial()).into()));
            found = true;
        }
        if !found {
            bail!("the file has no CRL");
        }
        Ok(Self { serials })
    }

    /// Whether a certificate is revoked.
    pub(crate) fn contains(&self, serial: &[u8]) -> bool {
        self.serials.contains(without_zeros(serial))
    }
}

fn without_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(alter: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(vec![0x80, 1].into());
        alter(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("legal").der().clone()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().expect("ASCII"))
    }

    #[test]
    fn the_alternative_name_is_the_first_dns_name() {
        let uri = SanType::URI("spiffe://a/b".try_into().expect("ASCII"));
        let with_dns = certificate(|params| {
            params.subject_alt_names = vec![uri.clone(), dns("berlin-7"), dns("other")];
        });
        let found = identity(&with_dns, NameRule::San).expect("a name");
        assert_eq!(&*found.name, "berlin-7");
        let without_dns = certificate(|params| params.subject_alt_names = vec![uri]);
        let found = identity(&without_dns, NameRule::San).expect("a name");
        assert_eq!(&*found.name, "spiffe://a/b");
        assert!(identity(&certificate(|_| {}), NameRule::San).is_err());
    }

    #[test]
    fn the_common_name_must_be_there() {
        let named = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "alice");
        });
        let found = identity(&named, NameRule::Cn).expect("a name");
        assert_eq!(&*found.name, "alice");
        let Proof::Certificate { serial, .. } = found.proof else {
            panic!("not by certificate");
        };
        assert_eq!(*serial, [0x80, 1]);
        let nameless = certificate(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
        });
        assert!(identity(&nameless, NameRule::Cn).is_err());
        let empty = certificate(|params| params.distinguished_name.push(DnType::CommonName, ""));
        assert!(identity(&empty, NameRule::Cn).is_err());
    }

    #[test]
    fn a_file_without_a_crl_is_refused() {
        assert!(Revoked::parse(b"").is_err());
        assert!(Revoked::parse(b"nonsense").is_err());
    }
}
