//! The gateway's part of enrolment.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateSigningRequestParams, Issuer, KeyPair};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::proto::enroll_service_server::{self, EnrollServiceServer};
use super::proto::{EnrollRequest, EnrollResponse};
use crate::certs::{Kind, params};
use crate::connect::read;
use crate::identity::tokens::{hash, parse_line};
use crate::private_file;

/// The largest request, in bytes. It comes from somebody who has proved nothing yet.
const MAX_REQUEST: usize = 16 * 1024;

/// How many requests read files at once: strangers must not take all threads for files.
const MAX_AT_ONCE: usize = 2;

/// What enrolment needs.
#[derive(Clone, Debug)]
pub(crate) struct EnrollFiles {
    /// The CA of agents (PEM).
    pub(crate) ca_cert: PathBuf,
    /// Its private key (PEM).
    pub(crate) ca_key: PathBuf,
    /// One-time tokens, a line `KEY HASH` each, as `tunnel token new KEY --file FILE` adds them. The gateway removes
    /// the line of a token that is spent: it must be able to write the file and its directory.
    pub(crate) tokens: PathBuf,
    /// How long certificates are valid, in days.
    pub(crate) days: u32,
}

/// Gives agents their certificates.
pub(crate) struct EnrollService {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    files: EnrollFiles,
    turns: Arc<Semaphore>,
}

impl std::fmt::Debug for EnrollService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollService")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// An error of a request that is the agent's.
enum Refusal {
    Csr,
    Token,
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Csr => Self::invalid_argument(
                "the request for a certificate is malformed, or not signed by its key",
            ),
            Refusal::Token => Self::unauthenticated("the token is not known, or it was spent"),
            Refusal::Internal(error) => {
                tracing::error!("enrolment failed: {error:#}");
                Self::internal("the gateway could not make a certificate")
            }
        }
    }
}

impl EnrollService {
    /// Reads the CA.
    pub(crate) fn open(files: EnrollFiles) -> Result<Self> {
        let text = |path: &PathBuf| {
            let text = String::from_utf8(read(path)?);
            text.with_context(|| format!("{} is not text", path.display()))
        };
        let ca_pem = text(&files.ca_cert)?;
        let key = KeyPair::from_pem(&text(&files.ca_key)?)
            .with_context(|| format!("{} is not a private key", files.ca_key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)
            .with_context(|| format!("{} is not a certificate", files.ca_cert.display()))?;
        read(&files.tokens)?;
        Ok(Self {
            issuer,
            ca_pem,
            files,
            turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        })
    }

    /// The service, for the router of the agents' listener. It must not be behind the check of identities.
    pub(crate) fn into_server(self) -> EnrollServiceServer<Served> {
        let served = Served(Arc::new(self));
        EnrollServiceServer::new(served).max_decoding_message_size(MAX_REQUEST)
    }

    fn enroll(&self, request: &EnrollRequest) -> Result<EnrollResponse, Refusal> {
        // Its signature is verified here: the agent has the private key. Only the public key counts.
        let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem)
            .map_err(|_| Refusal::Csr)?;
        let key = self.spend(&request.token)?;
        let params = params(Kind::Agent, std::slice::from_ref(&key), self.files.days)?;
        let certificate = params
            .signed_by(&csr.public_key, &self.issuer)
            .context("cannot sign")?;
        let serial = params.serial_number.as_ref().map(|serial| serial.as_ref());
        let serial = data_encoding::HEXLOWER.encode(serial.unwrap_or_default());
        tracing::info!(key, serial, "agent enrolled");
        Ok(EnrollResponse {
            certificate_pem: certificate.pem(),
            ca_pem: self.ca_pem.clone(),
            key,
        })
    }

    /// Removes a token from the file. Returns its name.
    ///
    /// The token is spent before the certificate exists: a crash costs a token, and never gives two certificates for
    /// one.
    fn spend(&self, token: &str) -> Result<String, Refusal> {
        let hash = hash(token);
        let name = private_file::edit(&self.files.tokens, |text| {
            let (mut kept, mut name) = (String::new(), None);
            for line in text.split_inclusive('\n') {
                match parse_line(line) {
                    Ok(Some((owner, other))) if bool::from(other.ct_eq(&hash)) => {
                        name = Some(owner.to_owned());
                    }
                    _ => kept.push_str(line),
                }
            }
            Ok((name.is_some().then_some(kept), name))
        })?;
        name.ok_or(Refusal::Token)
    }
}

/// The service, shared by its connections.
#[derive(Clone, Debug)]
pub(crate) struct Served(Arc<EnrollService>);

#[tonic::async_trait]
impl enroll_service_server::EnrollService for Served {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let service = self.0.clone();
        let request = request.into_inner();
        // Fails only when it is closed, which never happens.
        let turn = self.0.turns.clone().acquire_owned().await;
        let enrolled = tokio::task::spawn_blocking(move || {
            // Also when the agent has gone meanwhile.
            let _turn = turn;
            service.enroll(&request)
        });
        let enrolled = enrolled.await;
        let enrolled = enrolled.map_err(|_| Status::internal("the enrolment failed"))?;
        Ok(Response::new(enrolled?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::enroll;
    use super::*;
    use crate::certs::init;
    use crate::identity::certificate::{NameRule, identity};
    use data_encoding::HEXLOWER;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use tempfile::TempDir;

    fn service(dir: &TempDir, names: &[&str]) -> EnrollService {
        init(dir.path()).expect("a CA");
        let tokens = dir.path().join("tokens");
        let lines = names.iter().map(|name| {
            format!(
                "{name} {}\n",
                HEXLOWER.encode(&hash(&format!("tnl_{name}")))
            )
        });
        std::fs::write(&tokens, lines.collect::<String>()).expect("written");
        let files = EnrollFiles {
            ca_cert: dir.path().join("ca.pem"),
            ca_key: dir.path().join("ca-key.pem"),
            tokens,
            days: 30,
        };
        EnrollService::open(files).expect("legal")
    }

    fn csr(name: &str) -> String {
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("legal");
        let key = KeyPair::generate().expect("a key");
        let csr = params.serialize_request(&key).expect("signed");
        csr.pem().expect("PEM")
    }

    #[test]
    fn the_name_is_that_of_the_token_whatever_is_requested() {
        let dir = TempDir::new().expect("a directory");
        let service = service(&dir, &["a", "b"]);
        let mut request = EnrollRequest {
            token: "tnl_a".to_owned(),
            csr_pem: "nonsense".to_owned(),
        };
        assert!(matches!(service.enroll(&request), Err(Refusal::Csr)));
        request.csr_pem = csr("b");
        let Ok(response) = service.enroll(&request) else {
            panic!("refused");
        };
        let pem = response.certificate_pem.as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem).expect("PEM");
        let named = identity(&certificate, NameRule::San).expect("named");
        assert_eq!((&*named.name, &*response.key), ("a", "a"));
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("legal");
        assert!(!parsed.is_ca());
        assert!(matches!(service.enroll(&request), Err(Refusal::Token)));
        let left = std::fs::read_to_string(dir.path().join("tokens")).expect("read");
        assert!(
            left.starts_with("b ") && left.lines().count() == 1,
            "{left}"
        );
    }

    #[test]
    fn one_of_many_that_spend_a_token_at_once_gets_a_certificate() {
        let dir = TempDir::new().expect("a directory");
        let service = service(&dir, &["a"]);
        let request = EnrollRequest {
            token: "tnl_a".to_owned(),
            csr_pem: csr("a"),
        };
        let enrolled = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(|| service.enroll(&request).is_ok()));
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!(enrolled.iter().filter(|enrolled| **enrolled).count(), 1);
    }

    #[tokio::test]
    async fn an_agent_gets_a_certificate_for_its_own_key_pair() {
        let dir = TempDir::new().expect("a directory");
        let server = service(&dir, &["a", "b"]).into_server();
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let tcp = tcp.expect("bound");
        let address = tcp.local_addr().expect("bound");
        let incoming = tonic::transport::server::TcpIncoming::from(tcp);
        let serving = tonic::transport::Server::builder().add_service(server);
        let serving = tokio::spawn(serving.serve_with_incoming(incoming));
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.expect("legal").connect().await.expect("connected");
        let enrolled = enroll(channel.clone(), "tnl_a\n", "a").await;
        let enrolled = enrolled.expect("a certificate");
        let key = KeyPair::from_pem(&enrolled.private_key).expect("a key");
        let pem = enrolled.certificate.as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem).expect("PEM");
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("legal");
        assert_eq!(
            parsed.public_key().subject_public_key.data,
            key.public_key_raw()
        );
        assert!(enroll(channel.clone(), "tnl_a", "a").await.is_err());
        let error = enroll(channel, "tnl_b", "a")
            .await
            .expect_err("another key");
        assert!(error.to_string().contains("\"b\""), "{error}");
        serving.abort();
    }

    #[test]
    fn many_requests_leave_threads_to_the_others() {
        use super::enroll_service_server::EnrollService as _;
        use std::sync::mpsc;
        use std::time::Duration;

        let dir = TempDir::new().expect("a directory");
        let served = Served(Arc::new(service(&dir, &[])));
        let key = KeyPair::generate().expect("a key");
        let csr = rcgen::CertificateParams::default().serialize_request(&key);
        let request = EnrollRequest {
            csr_pem: csr.expect("signed").pem().expect("PEM"),
            token: "tnl_guess".to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .max_blocking_threads(MAX_AT_ONCE + 1)
            .enable_all()
            .build()
            .expect("a runtime");
        // The file is in use, so that no request gets on.
        let (locked, is_locked) = mpsc::channel();
        let (unlock, unlocked) = mpsc::channel::<()>();
        let file = dir.path().join("tokens");
        let holder = std::thread::spawn(move || {
            private_file::edit(&file, |_| {
                locked.send(()).expect("waited for");
                let _ = unlocked.recv();
                Ok((None, ()))
            })
        });
        is_locked.recv().expect("locked");
        let other = runtime.block_on(async {
            for _ in 0..8 {
                let (served, request) = (served.clone(), request.clone());
                tokio::spawn(async move { served.enroll(Request::new(request)).await });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let other = tokio::task::spawn_blocking(|| ());
            tokio::time::timeout(Duration::from_secs(5), other).await
        });
        drop(unlock);
        holder.join().expect("no panic").expect("unlocked");
        assert!(other.is_ok(), "all threads wait for the file");
    }
}
