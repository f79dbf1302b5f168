//! Who makes a request: found by the sources of proof that the settings name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls_pki_types::CertificateDer;
use tonic::Status;

use super::certificate::{self, NameRule, Revoked};
use super::jwt::{JwtKeys, JwtRules, Verified};
use super::tokens::{self, Tokens};
use super::{Identity, Proof};
use crate::reload::Reloadable;

/// What may prove an identity.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentitySources {
    /// Certificates that the TLS listener has verified, and which of their names counts.
    pub(crate) certificates: Option<NameRule>,
    /// A file of opaque tokens.
    pub(crate) tokens: Option<PathBuf>,
    pub(crate) jwt: Option<JwtSource>,
    /// A file of CRLs (PEM) for certificates.
    pub(crate) crl: Option<PathBuf>,
}

/// JWTs of an issuer.
#[derive(Clone, Debug)]
pub(crate) struct JwtSource {
    /// The file of the issuer's public keys: PEM or a JWKS.
    pub(crate) keys: PathBuf,
    /// The claim that is the name.
    pub(crate) claim: String,
    /// What `iss` must be.
    pub(crate) issuer: Option<String>,
    /// What `aud` must contain.
    pub(crate) audience: Option<String>,
}

/// Finds out who makes a request, and whether that is still true later.
///
/// The default identifies nobody.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {
    certificates: Option<NameRule>,
    files: Option<Reloadable<Files>>,
}

/// What was read from the files.
#[derive(Debug, Default)]
struct Files {
    tokens: Option<Tokens>,
    jwt: Option<(JwtKeys, Arc<JwtRules>)>,
    revoked: Revoked,
    /// JWTs that were verified with the keys of these files.
    verified: Verified,
}

impl Authenticator {
    /// Reads the files of the sources.
    pub(crate) fn open(sources: IdentitySources) -> Result<Self> {
        let IdentitySources {
            certificates,
            tokens,
            jwt,
            crl,
        } = sources;
        let rules = jwt.as_ref().map(|jwt| {
            Arc::new(JwtRules {
                claim: jwt.claim.clone(),
                issuer: jwt.issuer.clone(),
                audience: jwt.audience.clone(),
            })
        });
        let jwt = jwt.map(|jwt| jwt.keys);
        let paths: Vec<_> = [&tokens, &jwt, &crl]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let files = Reloadable::open(paths, move |contents| {
            // The contents are in the order of the paths.
            let mut contents = contents.iter();
            let mut next = |file: Option<_>| file.and_then(|file| Some((file, contents.next()?)));
            let tokens = next(tokens.as_ref());
            let jwt = next(jwt.as_ref());
            let crl = next(crl.as_ref());
            Ok(Files {
                tokens: parse(tokens, Tokens::parse)?,
                jwt: parse(jwt, JwtKeys::parse)?.zip(rules.clone()),
                revoked: parse(crl, Revoked::parse)?.unwrap_or_default(),
                verified: Verified::default(),
            })
        })?;
        Ok(Self {
            certificates,
            files: Some(files),
        })
    }

    /// Who has sent these headers over a connection with these verified client certificates. `None`: neither a
    /// certificate nor a bearer token.
    ///
    /// A bearer token has priority over a certificate: a bad token is refused even beside a good certificate. Where
    /// neither tokens nor JWTs are a source, the header `authorization` is ignored.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED: there is proof, and it is not good.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        certificates: Option<&[CertificateDer<'static>]>,
    ) -> Result<Option<Identity>, Status> {
        let files = self.files();
        if let Some(token) = files.bearer(headers)? {
            return files.by_token(token).map(Some);
        }
        let certificate = certificates.and_then(|certificates| certificates.first());
        let (Some(certificate), Some(rule)) = (certificate, self.certificates) else {
            return Ok(None);
        };
        let identity = certificate::identity(certificate, rule)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        files.check(&identity)?;
        Ok(Some(identity))
    }

    /// Whether an identity is still good: not expired, not revoked.
    ///
    /// The removal of an issuer's key does not end what its JWTs have begun: they end when they expire.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED, with the reason.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), Status> {
        self.files().check(identity)
    }

    /// Reads the files again. Returns whether they changed.
    ///
    /// # Errors
    ///
    /// A file is absent or illegal. All files stay in use as they were.
    pub(crate) fn reload(&self) -> Result<bool> {
        self.files.as_ref().map_or(Ok(false), Reloadable::reload)
    }

    fn files(&self) -> Arc<Files> {
        self.files.as_ref().map(Reloadable::get).unwrap_or_default()
    }
}

impl Files {
    /// The bearer token, if tokens are a source.
    fn bearer<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Status> {
        if self.tokens.is_none() && self.jwt.is_none() {
            return Ok(None);
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Status::unauthenticated(
                "there is more than one authorization",
            ));
        }
        let value = value
            .to_str()
            .map_err(|_| Status::unauthenticated("the authorization is not text"))?;
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        Ok(scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim()))
    }

    fn by_token(&self, token: &str) -> Result<Identity, Status> {
        if let Some((keys, rules)) = &self.jwt
            && token.split('.').count() == 3
        {
            let hash = tokens::hash(token);
            if let Some(identity) = self.verified.get(&hash) {
                return Ok(identity);
            }
            let identity = keys.verify(token, rules).map_err(Status::unauthenticated)?;
            self.verified.add(hash, &identity);
            return Ok(identity);
        }
        let hash = tokens::hash(token);
        let name = self.tokens.as_ref().and_then(|tokens| tokens.name(&hash));
        let name = name.ok_or_else(|| Status::unauthenticated("the bearer token is not known"))?;
        Ok(Identity {
            name: name.clone(),
            proof: Proof::Token { hash },
        })
    }

    fn check(&self, identity: &Identity) -> Result<(), Status> {
        match &identity.proof {
            Proof::Certificate { expires, .. } if *expires <= SystemTime::now() => {
                Err(Status::unauthenticated("the certificate has expired"))
            }
            Proof::Certificate { serial, .. } if self.revoked.contains(serial) => {
                Err(Status::unauthenticated("the certificate was revoked"))
            }
            Proof::Token { hash } => {
                let name = self.tokens.as_ref().and_then(|tokens| tokens.name(hash));
                match name.is_some_and(|name| *name == identity.name) {
                    true => Ok(()),
                    false => Err(Status::unauthenticated("the token was revoked")),
                }
            }
            Proof::Jwt { expires } if *expires <= SystemTime::now() => {
                Err(Status::unauthenticated("the JWT has expired"))
            }
            Proof::Certificate { .. } | Proof::Jwt { .. } | Proof::Claimed => Ok(()),
        }
    }
}

/// Parses the contents of a file, and names the file in the error.
fn parse<T>(
    file: Option<(&PathBuf, &Vec<u8>)>,
    parse: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<Option<T>> {
    let Some((path, contents)) = file else {
        return Ok(None);
    };
    let parsed = parse(contents).with_context(|| path.display().to_string())?;
    Ok(Some(parsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use http::HeaderValue;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use serde_json::json;
    use std::path::Path;
    use tempfile::TempDir;

    fn bearer(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("legal");
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    fn line(name: &str, token: &str) -> String {
        format!("{name} {}\n", HEXLOWER.encode(&tokens::hash(token)))
    }

    fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn certificate(name: &str, serial: u8, expires: i32) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(vec![serial].into());
        params.not_after = rcgen::date_time_ymd(expires, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("ASCII"))];
        let key = KeyPair::generate().expect("a key");
        vec![params.self_signed(&key).expect("legal").der().clone()]
    }

    fn with_tokens(path: &Path) -> Authenticator {
        let sources = IdentitySources {
            certificates: Some(NameRule::San),
            tokens: Some(path.to_owned()),
            ..IdentitySources::default()
        };
        Authenticator::open(sources).expect("legal")
    }

    #[test]
    fn without_sources_nobody_is_identified() {
        let nobody = Authenticator::default();
        let certificate = certificate("a", 1, 3000);
        let identified = nobody.identify(&bearer("x"), Some(&certificate));
        assert_eq!(identified.expect("no proof"), None);
    }

    #[test]
    fn a_token_is_good_until_its_line_is_removed() {
        let dir = TempDir::new().expect("a directory");
        let file = write(&dir, "tokens", &line("alice", "tnl_a"));
        let authenticator = with_tokens(&file);
        let alice = authenticator
            .identify(&bearer("tnl_a"), None)
            .expect("good");
        let alice = alice.expect("a token");
        assert_eq!(&*alice.name, "alice");
        write(&dir, "tokens", "nonsense");
        assert!(authenticator.reload().is_err());
        assert!(authenticator.check(&alice).is_ok());
        write(&dir, "tokens", &line("bob", "tnl_b"));
        assert!(authenticator.reload().expect("legal"));
        assert!(authenticator.check(&alice).is_err());
        assert!(authenticator.identify(&bearer("tnl_a"), None).is_err());
    }

    #[test]
    fn a_bad_token_is_refused_even_beside_a_certificate_and_is_not_repeated() {
        let dir = TempDir::new().expect("a directory");
        let authenticator = with_tokens(&write(&dir, "tokens", &line("alice", "tnl_a")));
        let certificate = certificate("bob", 1, 3000);
        for token in ["secret", "", "secret.secret.secret"] {
            let refused = authenticator.identify(&bearer(token), Some(&certificate));
            let status = refused.expect_err("unknown");
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(!status.message().contains("secret"), "{status}");
        }
        let mut two = bearer("tnl_a");
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        assert!(authenticator.identify(&two, None).is_err());
        let good = authenticator.identify(&bearer("tnl_a"), Some(&certificate));
        assert_eq!(&*good.expect("good").expect("a token").name, "alice");
        let by_certificate = authenticator.identify(&HeaderMap::new(), Some(&certificate));
        assert_eq!(&*by_certificate.expect("good").expect("named").name, "bob");
    }

    #[test]
    fn without_tokens_the_authorization_is_that_of_the_device() {
        let sources = IdentitySources {
            certificates: Some(NameRule::Cn),
            ..IdentitySources::default()
        };
        let authenticator = Authenticator::open(sources).expect("legal");
        let certificate = certificate("bob", 1, 3000);
        let bob = authenticator.identify(&bearer("for the device"), Some(&certificate));
        assert_eq!(&*bob.expect("good").expect("named").name, "bob");
    }

    #[test]
    fn expired_and_revoked_certificates_are_refused() {
        let dir = TempDir::new().expect("a directory");
        let crl = |serials: &[u8]| {
            let mut params = CertificateParams::default();
            params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
            let issuer = rcgen::Issuer::new(params, KeyPair::generate().expect("a key"));
            let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
                serial_number: vec![*serial].into(),
                revocation_time: rcgen::date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            });
            let params = rcgen::CertificateRevocationListParams {
                this_update: rcgen::date_time_ymd(2020, 1, 1),
                next_update: rcgen::date_time_ymd(3000, 1, 1),
                crl_number: 1_u64.into(),
                issuing_distribution_point: None,
                revoked_certs: revoked.collect(),
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            params
                .signed_by(&issuer)
                .expect("signed")
                .pem()
                .expect("PEM")
        };
        let sources = IdentitySources {
            certificates: Some(NameRule::Cn),
            crl: Some(write(&dir, "crl", &crl(&[9]))),
            ..IdentitySources::default()
        };
        let authenticator = Authenticator::open(sources).expect("legal");
        let identify = |certificate: &[CertificateDer<'static>]| {
            authenticator.identify(&HeaderMap::new(), Some(certificate))
        };
        let good = certificate("bob", 0x81, 3000);
        let bob = identify(&good).expect("good").expect("named");
        assert!(identify(&certificate("bob", 1, 2020)).is_err());
        assert!(identify(&certificate("bob", 9, 3000)).is_err());
        write(&dir, "crl", &crl(&[9, 0x81]));
        assert!(authenticator.check(&bob).is_ok());
        assert!(authenticator.reload().expect("legal"));
        assert!(authenticator.check(&bob).is_err());
    }

    #[test]
    fn a_verified_jwt_is_good_until_it_expires_or_the_keys_change() {
        let dir = TempDir::new().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let sources = IdentitySources {
            jwt: Some(JwtSource {
                keys: write(&dir, "keys", &key.public_key_pem()),
                claim: "sub".to_owned(),
                issuer: None,
                audience: None,
            }),
            ..IdentitySources::default()
        };
        let authenticator = Authenticator::open(sources).expect("legal");
        let issue = |seconds| {
            let expires = jsonwebtoken::get_current_timestamp() + seconds;
            let claims = json!({"sub": "alice", "exp": expires});
            let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
            let key = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
            jsonwebtoken::encode(&header, &claims, &key).expect("signed")
        };
        let short = issue(2);
        assert!(authenticator.identify(&bearer(&short), None).is_ok());
        let long = issue(3600);
        assert!(authenticator.identify(&bearer(&long), None).is_ok());
        assert!(authenticator.identify(&bearer(&long), None).is_ok());
        // Another signature under the same claims is not the token that was verified.
        let (claims, _) = long.rsplit_once('.').expect("three parts");
        let (_, other) = short.rsplit_once('.').expect("three parts");
        let forged = format!("{claims}.{other}");
        assert!(authenticator.identify(&bearer(&forged), None).is_err());
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert!(authenticator.identify(&bearer(&short), None).is_err());
        let other = KeyPair::generate().expect("a key");
        write(&dir, "keys", &other.public_key_pem());
        assert!(authenticator.reload().expect("legal"));
        assert!(authenticator.identify(&bearer(&long), None).is_err());
    }

    #[test]
    #[ignore = "measures, and says how long a JWT takes"]
    fn jwts_take_time() {
        let key = KeyPair::generate().expect("a key");
        let keys = JwtKeys::parse(key.public_key_pem().as_bytes()).expect("a key");
        let rules = JwtRules {
            claim: "sub".to_owned(),
            issuer: None,
            audience: None,
        };
        let expires = jsonwebtoken::get_current_timestamp() + 3600;
        let claims = json!({"sub": "alice", "exp": expires});
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        let encoding = jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der());
        let token = jsonwebtoken::encode(&header, &claims, &encoding).expect("signed");
        let files = Files {
            jwt: Some((keys, Arc::new(rules))),
            ..Files::default()
        };
        let measure = |count: u32, verify: &dyn Fn()| {
            let began = std::time::Instant::now();
            (0..count).for_each(|_| verify());
            began.elapsed() / count
        };
        let (keys, rules) = files.jwt.as_ref().expect("keys");
        let anew = measure(2000, &|| assert!(keys.verify(&token, rules).is_ok()));
        let again = measure(100_000, &|| assert!(files.by_token(&token).is_ok()));
        println!("verified anew: {anew:?}; again: {again:?}");
    }

    #[test]
    fn tokens_and_jwts_work_side_by_side() {
        let dir = TempDir::new().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let sources = IdentitySources {
            tokens: Some(write(&dir, "tokens", &line("alice", "tnl_a"))),
            jwt: Some(JwtSource {
                keys: write(&dir, "keys", &key.public_key_pem()),
                claim: "sub".to_owned(),
                issuer: None,
                audience: None,
            }),
            ..IdentitySources::default()
        };
        let authenticator = Authenticator::open(sources).expect("legal");
        let claims = json!({"sub": "bob", "exp": 32_000_000_000_u64});
        let token = jsonwebtoken::encode(
            &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256),
            &claims,
            &jsonwebtoken::EncodingKey::from_ec_der(&key.serialize_der()),
        );
        for (token, name) in [
            (token.expect("signed"), "bob"),
            ("tnl_a".to_owned(), "alice"),
        ] {
            let who = authenticator.identify(&bearer(&token), None);
            let who = who.expect("good").expect("a token");
            assert_eq!(&*who.name, name);
            assert!(authenticator.check(&who).is_ok());
        }
        let mut expired = authenticator.identify(&bearer("tnl_a"), None);
        if let Ok(Some(identity)) = &mut expired {
            identity.proof = Proof::Jwt {
                expires: SystemTime::UNIX_EPOCH,
            };
            assert!(authenticator.check(identity).is_err());
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = TempDir::new().expect("a directory");
        let sources = IdentitySources {
            tokens: Some(write(&dir, "tokens", "nonsense")),
            ..IdentitySources::default()
        };
        let error = format!("{:#}", Authenticator::open(sources).expect_err("illegal"));
        assert!(error.contains("tokens: line 1"), "{error}");
    }
}
