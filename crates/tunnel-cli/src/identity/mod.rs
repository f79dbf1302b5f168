//! Who somebody is: by a verified certificate, a token or a JWT.

pub(crate) mod authenticator;
pub(crate) mod certificate;
pub(crate) mod jwt;
pub(crate) mod tokens;

use std::sync::Arc;
use std::time::SystemTime;

/// Somebody who was identified. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name: of a client for access rules, of an agent its key.
    pub(crate) name: Arc<str>,
    pub(crate) proof: Proof,
}

/// What proves an identity, and what must go on being true while it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A client certificate that was verified: its serial number (for revocation), and when it expires.
    Certificate {
        serial: Arc<[u8]>,
        expires: SystemTime,
    },
    /// An opaque token: the SHA-256 of it.
    Token { hash: [u8; 32] },
    /// A JWT: when it expires.
    Jwt { expires: SystemTime },
    /// Nothing: the gateway runs with insecure keys.
    Claimed,
}
