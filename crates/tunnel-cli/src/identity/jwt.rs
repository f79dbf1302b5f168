//! JWTs: verified with the public keys of their issuer.
//!
//! The algorithm must suit the key: RS and PS for RSA keys, ES256 for P-256, ES384 for P-384, EdDSA for Ed25519.
//! Symmetric algorithms and `none` are never accepted.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::time;
use super::{Identity, Proof};

/// How far the clock of the issuer may be ahead, in seconds. It does not prolong `exp`.
const CLOCK_SKEW: u64 = 30;

/// How many verified JWTs are kept.
const MAX_VERIFIED: usize = 10_000;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What a JWT must say.
#[derive(Clone, Debug)]
pub(crate) struct JwtRules {
    /// The claim that is the name.
    pub(crate) claim: String,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
}

/// Public keys of an issuer.
#[derive(Debug)]
pub(crate) struct JwtKeys {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl JwtKeys {
    /// Parses public keys: a JWKS, or PEM blocks `PUBLIC KEY`.
    pub(crate) fn parse(contents: &[u8]) -> Result<Self> {
        let json = contents.trim_ascii_start().starts_with(b"{");
        let keys = match json {
            true => parse_jwks(contents)?,
            false => parse_pem(contents)?,
        };
        if keys.is_empty() {
            bail!("the file has no public key that can verify a JWT");
        }
        Ok(Self { keys })
    }

    /// The identity that a JWT proves. An error does not contain the token.
    pub(crate) fn verify(&self, token: &str, rules: &JwtRules) -> Result<Identity, &'static str> {
        let header = decode_header(token).map_err(explain)?;
        if header.crit.is_some() {
            return Err("the JWT has critical extensions, which are not supported");
        }
        let suitable = self.keys.iter().filter(|key| {
            let other = header.kid.is_some() && key.id.is_some() && key.id != header.kid;
            key.algorithms.contains(&header.alg) && !other
        });
        let mut error = "no key of the issuer suits the JWT";
        for key in suitable {
            match decode::<Map<String, Value>>(token, &key.key, &validation(key, rules)) {
                Ok(token) => return identity(&token.claims, rules),
                Err(e) if matches!(e.kind(), ErrorKind::InvalidSignature) => error = explain(e),
                Err(e) => return Err(explain(e)),
            }
        }
        Err(error)
    }
}

/// JWTs that were verified, by their SHA-256: a signature takes a hundred times as long.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    identities: RwLock<HashMap<[u8; 32], Identity>>,
}

impl Verified {
    /// Whose JWT this is, if it was verified and has not expired.
    pub(crate) fn get(&self, hash: &[u8; 32]) -> Option<Identity> {
        let identities = self
            .identities
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let identity = identities.get(hash)?;
        is_current(identity).then(|| identity.clone())
    }

    /// Keeps a JWT that was verified. If there are too many, the others are forgotten.
    pub(crate) fn add(&self, hash: [u8; 32], identity: &Identity) {
        let mut identities = self
            .identities
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if identities.len() >= MAX_VERIFIED {
            identities.clear();
        }
        identities.insert(hash, identity.clone());
    }
}

fn is_current(identity: &Identity) -> bool {
    matches!(identity.proof, Proof::Jwt { expires } if expires > SystemTime::now())
}

fn validation(key: &Key, rules: &JwtRules) -> Validation {
    let mut validation = Validation {
        algorithms: key.algorithms.clone(),
        leeway: CLOCK_SKEW,
        validate_nbf: true,
        validate_aud: rules.audience.is_some(),
        ..Validation::default()
    };
    let mut required = vec!["exp"];
    if let Some(issuer) = &rules.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &rules.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn identity(claims: &Map<String, Value>, rules: &JwtRules) -> Result<Identity, &'static str> {
    let expires = claims.get("exp").and_then(Value::as_f64);
    // A cast of a float saturates.
    let expires = time(expires.ok_or("the JWT does not say when it expires")? as u64);
    if expires <= SystemTime::now() {
        return Err("the JWT has expired");
    }
    let name = claims.get(&rules.claim).and_then(Value::as_str);
    let name = name.filter(|name| !name.is_empty());
    Ok(Identity {
        name: name
            .ok_or("the JWT has no name in the claim that names its owner")?
            .into(),
        proof: Proof::Jwt { expires },
    })
}

fn explain(error: jsonwebtoken::errors::Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidSignature => "the signature of the JWT is not that of the issuer",
        ErrorKind::ExpiredSignature => "the JWT has expired",
        ErrorKind::ImmatureSignature => "the JWT is not valid yet",
        ErrorKind::InvalidIssuer => "the JWT is of another issuer",
        ErrorKind::InvalidAudience => "the JWT is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the JWT lacks a claim: exp, iss or aud",
        ErrorKind::InvalidAlgorithm => "the algorithm of the JWT does not suit the issuer's key",
        _ => "the JWT is malformed, or its algorithm is not supported",
    }
}

fn parse_pem(pem: &[u8]) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
        let der = der.context("the file is not PEM")?;
        let (_, info) =
            SubjectPublicKeyInfo::from_der(&der).context("a public key is malformed")?;
        let bytes = &*info.subject_public_key.data;
        let curve = info.algorithm.parameters.as_ref();
        let curve = curve.and_then(|curve| curve.as_oid().ok());
        let curve = curve.map(|curve| curve.to_id_string());
        let algorithm = info.algorithm.algorithm.to_id_string();
        let (algorithms, key) = match (algorithm.as_str(), curve.as_deref()) {
            ("1.2.840.113549.1.1.1", _) => (RSA.to_vec(), DecodingKey::from_rsa_der(bytes)),
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => {
                (vec![Algorithm::ES256], DecodingKey::from_ec_der(bytes))
            }
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => {
                (vec![Algorithm::ES384], DecodingKey::from_ec_der(bytes))
            }
            ("1.3.101.112", _) => (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(bytes)),
            _ => bail!("a public key is neither RSA, P-256, P-384 nor Ed25519"),
        };
        keys.push(Key {
            id: None,
            algorithms,
            key,
        });
    }
    Ok(keys)
}

fn parse_jwks(json: &[u8]) -> Result<Vec<Key>> {
    let jwks: JwkSet = serde_json::from_slice(json).context("the file is not a JWKS")?;
    let mut keys = Vec::new();
    for jwk in &jwks.keys {
        let for_signatures = jwk.common.public_key_use.as_ref();
        if for_signatures.is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            continue;
        }
        let mut algorithms = algorithms(jwk)?;
        if let Some(only) = &jwk.common.key_algorithm {
            let only = only.to_string().parse::<Algorithm>().ok();
            algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        if !algorithms.is_empty() {
            keys.push(Key {
                id: jwk.common.key_id.clone(),
                algorithms,
                key: DecodingKey::from_jwk(jwk).context("a key of the JWKS is malformed")?,
            });
        }
    }
    Ok(keys)
}

/// The algorithms of a kind of key. Empty: a kind that is not supported.
fn algorithms(jwk: &Jwk) -> Result<Vec<Algorithm>> {
    Ok(match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(params) => match params.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKey(_) => bail!("the JWKS has a symmetric key"),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64URL_NOPAD;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    struct Issuer {
        key: rcgen::KeyPair,
    }

    impl Issuer {
        fn new() -> Self {
            let key = rcgen::KeyPair::generate().expect("a key");
            Self { key }
        }

        fn keys(&self) -> JwtKeys {
            JwtKeys::parse(self.key.public_key_pem().as_bytes()).expect("a key")
        }

        fn issue(&self, claims: &Value) -> String {
            let key = EncodingKey::from_ec_der(&self.key.serialize_der());
            encode(&Header::new(Algorithm::ES256), claims, &key).expect("signed")
        }
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn rules() -> JwtRules {
        JwtRules {
            claim: "sub".to_owned(),
            issuer: None,
            audience: None,
        }
    }

    #[test]
    fn a_jwt_names_its_owner() {
        let issuer = Issuer::new();
        let claims = json!({"sub": "alice", "team": "a-team", "exp": now() + 60, "aud": "other"});
        let token = issuer.issue(&claims);
        let alice = issuer.keys().verify(&token, &rules()).expect("good");
        assert_eq!(&*alice.name, "alice");
        let expires = time(now() + 60);
        assert!(matches!(alice.proof, Proof::Jwt { expires: at } if at <= expires));
        let team = JwtRules {
            claim: "team".to_owned(),
            ..rules()
        };
        let named = issuer.keys().verify(&token, &team).expect("good");
        assert_eq!(&*named.name, "a-team");
    }

    #[test]
    fn ed25519_and_jwks_and_several_keys_work() {
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let other = Issuer::new();
        let pem = format!("{}\n{}", other.key.public_key_pem(), ed.public_key_pem());
        let claims = json!({"sub": "alice", "exp": now() + 60});
        let key = EncodingKey::from_ed_der(&ed.serialize_der());
        let token = encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("signed");
        let keys = JwtKeys::parse(pem.as_bytes()).expect("two keys");
        assert!(keys.verify(&token, &rules()).is_ok());
        assert!(keys.verify(&other.issue(&claims), &rules()).is_ok());
        let x = BASE64URL_NOPAD.encode(ed.public_key_raw());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "1"}]});
        let keys = JwtKeys::parse(jwks.to_string().as_bytes()).expect("a key");
        assert!(keys.verify(&token, &rules()).is_ok());
        let header = Header {
            kid: Some("2".to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = encode(&header, &claims, &key).expect("signed");
        assert!(keys.verify(&token, &rules()).is_err());
    }

    /// A key and a JWT of `openssl`.
    const RSA_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyTGmlcFyA3LgTPhESkAX\n\
        l/ByQyDSZ4S61DXWswbFS1NIJN+5KW3HT7VBph9ECauyx4hwvXVWYwYHNhWakDRd\n\
        mP18L5SjE5VWZOjDJ1Yg6NQTr2Ib0hG/0Rh8z51m9L4bErmKerR/7t5fpvvU28Xh\n\
        jB8Fl8Pc2zrXqmLn7nqdRHt4AE+ctQmivikId7ALWC9u0z5P1tGxRMOK4/v88d+D\n\
        14v/HJDfoTJCaQrWq+lnmrJ/+NDIVkaHNz0frFNbVUsRCqaarG7Ygxw+4+QfUF9u\n\
        0FIE7QHMfTdgnZ4/pVjzM84lAgRxFdKVsKGksqrwMLv5Cew0IAwdaAM92cVBO925\n\
        MQIDAQAB\n\
        -----END PUBLIC KEY-----";
    const RSA_JWT: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MzIwMDAwMDAwMDB9.E36XR-uI\
        a2_cKRHDhiwN6G6zQPNVCy-YBOCc2opdk0UZqNz2jnZk_X-dlSTYHAJF6Mh_61wXja4fzRbDnZtnN-TxY2kZjjX0gV\
        lrAPulKjcmEQYxKbJ5QVCqL-zuupZ46-HzEKMKUUo4EvcSyZM-CRXahm-8IjCIp96Rf8T4Mu3w4UUgCCxn7vYKcEyN\
        V3JcMFNqqLusooEhAS40cMj_LSJYXstDn-7D3ZRxb_AfMSR0UxgRCjIc_3uElCVFFDfYhqZmJG9btA6N0Tq8ICQ0zK\
        dUf07x8KwVNX2-zKREUQQqY_WUOii407n95C_66EqAxQMAtKGi-zqJ69DPhJ0xTw";

    #[test]
    fn a_jwt_of_an_rsa_key_is_verified() {
        let keys = JwtKeys::parse(RSA_KEY.as_bytes()).expect("a key");
        let alice = keys.verify(RSA_JWT, &rules()).expect("good");
        assert_eq!(&*alice.name, "alice");
        let other = RSA_JWT.replace(".eyJzdWIi", ".eyJTdWIi");
        assert!(keys.verify(&other, &rules()).is_err());
    }

    #[test]
    fn verified_jwts_do_not_take_more_and_more_memory() {
        let verified = Verified::default();
        let alice = Identity {
            name: "alice".into(),
            proof: Proof::Jwt {
                expires: SystemTime::now() + std::time::Duration::from_secs(60),
            },
        };
        let hash = |n: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            hash
        };
        for n in 0..=MAX_VERIFIED {
            verified.add(hash(n), &alice);
        }
        assert_eq!(verified.get(&hash(MAX_VERIFIED)), Some(alice));
        assert_eq!(verified.identities.read().expect("no panic").len(), 1);
    }

    #[test]
    fn forged_jwts_are_refused() {
        let issuer = Issuer::new();
        let claims = json!({"sub": "alice", "exp": now() + 60});
        let keys = issuer.keys();
        let forged = Issuer::new().issue(&claims);
        assert!(keys.verify(&forged, &rules()).is_err());
        // The public key as the secret of a symmetric algorithm.
        for secret in [
            issuer.key.public_key_pem().into_bytes(),
            issuer.key.public_key_raw().to_vec(),
        ] {
            let secret = EncodingKey::from_secret(&secret);
            let confused = encode(&Header::new(Algorithm::HS256), &claims, &secret);
            assert!(keys.verify(&confused.expect("signed"), &rules()).is_err());
        }
        let part = |json: Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        for algorithm in ["none", "None", "NONE"] {
            let head = part(json!({"alg": algorithm, "typ": "JWT"}));
            let none = format!("{head}.{}.", part(claims.clone()));
            assert!(keys.verify(&none, &rules()).is_err());
        }
        // Other claims under a signature that was good.
        let token = issuer.issue(&claims);
        let parts: Vec<_> = token.split('.').collect();
        let other = part(json!({"sub": "bob", "exp": now() + 60}));
        let altered = format!("{}.{other}.{}", parts[0], parts[2]);
        assert!(keys.verify(&altered, &rules()).is_err());
        assert!(keys.verify("a.b.c", &rules()).is_err());
    }

    #[test]
    fn a_jwt_is_good_for_its_time_only() {
        let issuer = Issuer::new();
        let bad = [
            json!({"sub": "alice"}),
            json!({"sub": "alice", "exp": "soon"}),
            json!({"sub": "alice", "exp": now() - 1}),
            json!({"sub": "alice", "exp": now() - 3600}),
            json!({"sub": "alice", "exp": now() + 3600, "nbf": now() + 600}),
            json!({"exp": now() + 60}),
            json!({"sub": "", "exp": now() + 60}),
            json!({"sub": 7, "exp": now() + 60}),
        ];
        for claims in bad {
            let token = issuer.issue(&claims);
            assert!(issuer.keys().verify(&token, &rules()).is_err(), "{claims}");
        }
        let endless = issuer.issue(&json!({"sub": "alice", "exp": u64::MAX}));
        assert!(issuer.keys().verify(&endless, &rules()).is_ok());
    }

    #[test]
    fn the_issuer_and_the_audience_must_be_named() {
        let issuer = Issuer::new();
        let strict = JwtRules {
            issuer: Some("https://id".to_owned()),
            audience: Some("tunnel".to_owned()),
            ..rules()
        };
        let cases = [
            (json!({"iss": "https://id", "aud": "tunnel"}), true),
            (json!({"iss": "https://id", "aud": ["a", "tunnel"]}), true),
            (json!({"iss": "https://evil", "aud": "tunnel"}), false),
            (json!({"iss": "https://id", "aud": "other"}), false),
            (json!({"iss": "https://id"}), false),
            (json!({"aud": "tunnel"}), false),
        ];
        for (mut claims, good) in cases {
            claims["sub"] = "alice".into();
            claims["exp"] = (now() + 60).into();
            let token = issuer.issue(&claims);
            let verified = issuer.keys().verify(&token, &strict);
            assert_eq!(verified.is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn files_without_a_usable_key_are_refused() {
        let symmetric = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]});
        for text in ["", "nonsense", "{\"keys\": []}", &symmetric.to_string()] {
            assert!(JwtKeys::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
