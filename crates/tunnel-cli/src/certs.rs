//! `tunnel certs`: a certificate authority for development.
//!
//! Agents get their name as the alternative name, clients as the common name: with the rules `agents-name = san` and
//! `clients-name = cn`, which are the defaults, neither can pass for the other.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::connect::read;
use crate::private_file;

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CRL: &str = "crl.pem";

/// The length of serial numbers, in bytes.
const SERIAL_LENGTH: usize = 16;

/// A line `SERIAL KIND NAME` for each certificate: what `revoke` needs.
const ISSUED: &str = "issued";

/// The serial numbers of revoked certificates, a line each.
const REVOKED: &str = "revoked";

/// Certificates for development, from a CA whose key lies beside them. Not for production.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The directory of the CA and its certificates.
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// How long a certificate is valid, in days. The CA is valid for ten years.
    #[arg(long, global = true, value_name = "DAYS", default_value = "90", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make the CA: ca.pem, ca-key.pem and an empty crl.pem.
    Init,
    /// Make a certificate for a gateway.
    Server {
        /// The DNS names and IP addresses by which it is dialled. The first one names the files.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Make a certificate by which the gateways of a fleet know each other, for --hop-cert. Use a directory with a CA for
    /// gateways alone.
    Gateway {
        /// The DNS names and IP addresses by which the other gateways dial it. The first one names the files.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Make a certificate for an agent.
    Agent {
        /// The key under which it is called.
        key: String,
    },
    /// Make a certificate for a client.
    Client {
        /// The name for access rules.
        name: String,
    },
    /// Revoke all certificates of a name: writes crl.pem anew.
    Revoke {
        /// The name of an agent, a client or a gateway; or the serial number of a certificate that an enrolment made,
        /// as the gateway has logged it.
        name: String,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    eprintln!("for DEVELOPMENT only: the key of this CA lies unprotected on this machine");
    let dir = &args.dir;
    match &args.command {
        Command::Init => init(dir)?,
        Command::Revoke { name } => revoke(dir, name)?,
        Command::Server { names } => issue(dir, args.days, Kind::Server, names)?,
        Command::Gateway { names } => issue(dir, args.days, Kind::Gateway, names)?,
        Command::Agent { key } => issue(dir, args.days, Kind::Agent, std::slice::from_ref(key))?,
        Command::Client { name } => {
            issue(dir, args.days, Kind::Client, std::slice::from_ref(name))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Gateway,
    Agent,
    Client,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Agent => "agent",
            Self::Client => "client",
        }
    }
}

/// What a certificate of a kind says.
pub(crate) fn params(kind: Kind, names: &[String], days: u32) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, days);
    let mut serial = [0; SERIAL_LENGTH];
    getrandom::fill(&mut serial).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.extended_key_usages = match kind {
        Kind::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Kind::Agent | Kind::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Kind::Gateway => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
    };
    if kind == Kind::Client {
        let name = names.first().context("no name")?;
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        return Ok(params);
    }
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) if matches!(kind, Kind::Server | Kind::Gateway) => {
                SanType::IpAddress(address)
            }
            _ => SanType::DnsName(
                name.as_str()
                    .try_into()
                    .with_context(|| format!("{name:?} cannot be a DNS name"))?,
            ),
        });
    }
    Ok(params)
}

/// Valid from an hour ago, for clocks differ.
fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - std::time::Duration::from_secs(3600)).into();
    params.not_after = (now + std::time::Duration::from_secs(u64::from(days) * 86_400)).into();
}

/// Makes a CA.
pub(crate) fn init(dir: &Path) -> Result<()> {
    for name in [CA, CA_KEY] {
        let path = dir.join(name);
        if path.exists() {
            bail!("{} exists already; it is not overwritten", path.display());
        }
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "tunnel development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, 3650);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    put_private(&dir.join(CA_KEY), &key.serialize_pem())?;
    put(&dir.join(CA), &certificate.pem())?;
    write_crl(dir, &Issuer::new(params, key), &[])
}

/// The CA of a directory.
fn ca(dir: &Path) -> Result<Issuer<'static, KeyPair>> {
    let text = |name| -> Result<String> {
        let path = dir.join(name);
        let bytes = read(&path).context("there is no CA: run `tunnel certs init` first")?;
        String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))
    };
    let key = KeyPair::from_pem(&text(CA_KEY)?).context("ca-key.pem is not a private key")?;
    Issuer::from_ca_cert_pem(&text(CA)?, key).context("ca.pem is not a certificate")
}

fn issue(dir: &Path, days: u32, kind: Kind, names: &[String]) -> Result<()> {
    let name = names.first().context("no name")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    if names
        .iter()
        .any(|name| name.is_empty() || name.starts_with('.') || !name.chars().all(legal))
    {
        bail!("names have letters, digits and -_.:@ only, and do not begin with a point");
    }
    let issuer = ca(dir)?;
    let params = params(kind, names, days)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    let (_, parsed) = X509Certificate::from_der(certificate.der())?;
    let serial = HEXLOWER.encode(parsed.raw_serial());
    // First, so that each certificate that exists can be revoked.
    append(
        &dir.join(ISSUED),
        &format!("{serial} {} {name}\n", kind.name()),
    )?;
    let file = |suffix: &str| dir.join(format!("{}-{name}{suffix}.pem", kind.name()));
    put_private(&file("-key"), &key.serialize_pem())?;
    put(&file(""), &certificate.pem())
}

fn revoke(dir: &Path, name: &str) -> Result<()> {
    let issuer = ca(dir)?;
    let issued = text_or_empty(&dir.join(ISSUED))?;
    let named = issued.lines().filter_map(|line| {
        let (serial, rest) = line.split_once(' ')?;
        (rest.split_once(' ')?.1 == name).then_some(serial)
    });
    let mut named: Vec<_> = named.collect();
    if named.is_empty() {
        if !is_serial(name) {
            bail!("no certificate of {name:?} was made in {}", dir.display());
        }
        named.push(name);
    }
    let path = dir.join(REVOKED);
    let mut revoked = text_or_empty(&path)?;
    for serial in named {
        if !revoked.lines().any(|line| line == serial) {
            append(&path, &format!("{serial}\n"))?;
            revoked.push_str(&format!("{serial}\n"));
        }
    }
    let serials: Vec<_> = revoked
        .lines()
        .map(|line| HEXLOWER.decode(line.as_bytes()))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} has a line that is not a serial number", path.display()))?;
    write_crl(dir, &issuer, &serials)
}

fn is_serial(text: &str) -> bool {
    let serial = HEXLOWER.decode(text.as_bytes());
    serial.is_ok_and(|serial| serial.len() == SERIAL_LENGTH)
}

fn write_crl(dir: &Path, issuer: &Issuer<'_, KeyPair>, serials: &[Vec<u8>]) -> Result<()> {
    let now = std::time::SystemTime::now();
    let revoked_certs = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: now.into(),
        reason_code: None,
        invalidity_date: None,
    });
    let number = now.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let crl = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + std::time::Duration::from_secs(365 * 86_400)).into(),
        crl_number: number.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    put(&dir.join(CRL), &crl.signed_by(issuer)?.pem()?)
}

fn text_or_empty(path: &Path) -> Result<String> {
    match path.exists() {
        true => Ok(String::from_utf8(read(path)?)?),
        false => Ok(String::new()),
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn put(path: &Path, pem: &str) -> Result<()> {
    std::fs::write(path, pem).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn put_private(path: &Path, pem: &str) -> Result<()> {
    private_file::write(path, pem.as_bytes())?;
    println!("{}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Proof;
    use crate::identity::certificate::{NameRule, Revoked, identity};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    fn certificate(path: PathBuf) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(&std::fs::read(path).expect("there")).expect("PEM")
    }

    #[test]
    fn agents_and_clients_cannot_pass_for_each_other() {
        let dir = tempfile::TempDir::new().expect("a directory");
        init(dir.path()).expect("made");
        issue(dir.path(), 1, Kind::Agent, &["berlin-7".to_owned()]).expect("made");
        issue(dir.path(), 1, Kind::Client, &["alice".to_owned()]).expect("made");
        let agent = certificate(dir.path().join("agent-berlin-7.pem"));
        let client = certificate(dir.path().join("client-alice.pem"));
        let name =
            |certificate, rule| identity(certificate, rule).map(|found| found.name.to_string());
        assert_eq!(name(&agent, NameRule::San).expect("named"), "berlin-7");
        assert_eq!(name(&client, NameRule::Cn).expect("named"), "alice");
        assert!(name(&agent, NameRule::Cn).is_err());
        assert!(name(&client, NameRule::San).is_err());
    }

    #[test]
    fn a_ca_is_not_overwritten() {
        let dir = tempfile::TempDir::new().expect("a directory");
        init(dir.path()).expect("made");
        assert!(init(dir.path()).is_err());
    }

    #[test]
    fn all_certificates_of_a_name_are_revoked_and_stay_so() {
        let dir = tempfile::TempDir::new().expect("a directory");
        init(dir.path()).expect("made");
        let mut serials = Vec::new();
        for name in ["a", "a", "b"] {
            issue(dir.path(), 1, Kind::Agent, &[name.to_owned()]).expect("made");
            let made = certificate(dir.path().join(format!("agent-{name}.pem")));
            let Proof::Certificate { serial, .. } =
                identity(&made, NameRule::San).expect("named").proof
            else {
                panic!("not a certificate");
            };
            serials.push(serial);
        }
        let revoked = || {
            let crl = std::fs::read(dir.path().join(CRL)).expect("there");
            let crl = Revoked::parse(&crl).expect("legal");
            serials
                .iter()
                .map(|serial| crl.contains(serial))
                .collect::<Vec<_>>()
        };
        assert_eq!(revoked(), [false, false, false]);
        revoke(dir.path(), "a").expect("written");
        assert_eq!(revoked(), [true, true, false]);
        revoke(dir.path(), "b").expect("written");
        assert_eq!(revoked(), [true, true, true]);
        assert!(revoke(dir.path(), "c").is_err());
        revoke(dir.path(), &"4f".repeat(SERIAL_LENGTH)).expect("written");
        let crl = std::fs::read(dir.path().join(CRL)).expect("there");
        let crl = Revoked::parse(&crl).expect("legal");
        assert!(crl.contains(&[0x4f; SERIAL_LENGTH]));
    }

    #[test]
    fn names_that_are_not_names_of_files_are_refused() {
        let dir = tempfile::TempDir::new().expect("a directory");
        init(dir.path()).expect("made");
        for name in ["../a", "", "a b", ".a"] {
            assert!(issue(dir.path(), 1, Kind::Agent, &[name.to_owned()]).is_err());
        }
    }
}
