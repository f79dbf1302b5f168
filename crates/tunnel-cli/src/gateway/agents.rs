//! Agents: who they are, which key is theirs, and when their tunnels must end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};
use tunnel_server::{AffinityKey, Direction, Opening, TunnelId, TunnelServiceHandler};

use super::deny::DenyList;
use super::edge::{WHO, certificates};
use super::presence::Presence;
use crate::identity::authenticator::Authenticator;
use crate::identity::{Identity, Proof};
use crate::tunnels::KEY_METADATA;

/// The metadata in which the gateway keeps who the agent is. What an agent sends under this name is replaced.
const IDENTITY: &str = "tunnel-identity-bin";

/// How often tunnels are compared with what proves their keys.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How many tunnels are compared before other tasks have their turn: about a millisecond.
const CHECKS_PER_TURN: usize = 500;

/// The first bytes of the proofs, as they are kept.
const CERTIFICATE: u8 = 1;
const TOKEN: u8 = 2;
const JWT: u8 = 3;
const CLAIMED: u8 = 4;

/// Keeps an identity in the metadata of a tunnel: a byte for the kind of proof; the time in seconds at which it
/// expires, if it does; the serial number or the hash; the name.
fn keep(identity: &Identity, metadata: &mut MetadataMap) {
    let seconds = |time: &SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs().to_be_bytes()
    };
    let mut bytes = Vec::new();
    match &identity.proof {
        Proof::Certificate { serial, expires } => {
            bytes.push(CERTIFICATE);
            bytes.extend(seconds(expires));
            bytes.push(u8::try_from(serial.len()).unwrap_or(u8::MAX));
            bytes.extend(serial.iter().take(usize::from(u8::MAX)));
        }
        Proof::Token { hash } => {
            bytes.push(TOKEN);
            bytes.extend(hash);
        }
        Proof::Jwt { expires } => {
            bytes.push(JWT);
            bytes.extend(seconds(expires));
        }
        Proof::Claimed => bytes.push(CLAIMED),
    }
    bytes.extend(identity.name.as_bytes());
    metadata.insert_bin(IDENTITY, MetadataValue::from_bytes(&bytes));
}

fn kept(metadata: &MetadataMap) -> Option<Identity> {
    let bytes = metadata.get_bin(IDENTITY)?.to_bytes().ok()?;
    let (kind, mut rest) = bytes.split_first()?;
    let mut time = || {
        let (seconds, others) = rest.split_first_chunk::<8>()?;
        rest = others;
        let seconds = Duration::from_secs(u64::from_be_bytes(*seconds));
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let proof = match *kind {
        CERTIFICATE => {
            let expires = time()?;
            let (length, others) = rest.split_first()?;
            let (serial, others) = others.split_at_checked(usize::from(*length))?;
            rest = others;
            Proof::Certificate {
                serial: serial.into(),
                expires,
            }
        }
        TOKEN => {
            let (hash, others) = rest.split_first_chunk::<32>()?;
            rest = others;
            Proof::Token { hash: *hash }
        }
        JWT => Proof::Jwt { expires: time()? },
        CLAIMED => Proof::Claimed,
        _ => return None,
    };
    Some(Identity {
        name: std::str::from_utf8(rest).ok()?.into(),
        proof,
    })
}

/// Identifies the agent that opens a tunnel. The token is not kept.
///
/// # Errors
///
/// UNAUTHENTICATED, or PERMISSION_DENIED if the agent claims a key that is not its own.
pub(crate) fn identify(
    agents: &Authenticator,
    insecure: bool,
    mut request: Request<()>,
) -> Result<Request<()>, Status> {
    let certificates = certificates(request.extensions());
    let certificates = certificates.as_ref().map(|c| c.as_slice());
    let claim = request.metadata().get(KEY_METADATA);
    let claim = claim
        .and_then(|claim| claim.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let identity = match agents.identify(request.metadata().as_ref(), certificates)? {
        Some(identity) if claim.is_empty() || *claim == *identity.name => identity,
        Some(identity) => {
            let message = format!(
                "the credentials are those of {:?}, not of {claim:?}",
                identity.name
            );
            return Err(Status::permission_denied(message));
        }
        None if !insecure => {
            return Err(Status::unauthenticated(WHO));
        }
        None if claim.is_empty() => {
            let message = format!("no key: send it in the metadata {KEY_METADATA:?}");
            return Err(Status::invalid_argument(message));
        }
        None => Identity {
            name: claim.into(),
            proof: Proof::Claimed,
        },
    };
    request
        .metadata_mut()
        .remove(http::header::AUTHORIZATION.as_str());
    keep(&identity, request.metadata_mut());
    Ok(request)
}

/// The key of an opening that was identified.
pub(crate) fn key(opening: &Opening) -> Option<AffinityKey> {
    kept(opening.metadata()).map(|identity| AffinityKey::from(&*identity.name))
}

/// Whether an opening that was identified is admitted.
///
/// # Errors
///
/// The status of the refusal.
pub(crate) fn admit(
    opening: &Opening,
    deny: &DenyList,
    presence: &Presence,
    max_of_address: usize,
) -> Result<(), Status> {
    if opening.direction() == Direction::Forward {
        return Err(Status::unimplemented(
            "this gateway accepts reverse tunnels alone",
        ));
    }
    let Some(key) = opening.key() else {
        return Err(Status::unauthenticated("the agent was not identified"));
    };
    deny.check(key.as_str())?;
    if let Some(address) = opening.peer_addr()
        && presence.tunnels_of_address(address.ip()) >= max_of_address
    {
        let message = format!(
            "{} has {max_of_address} tunnels open, as many as are allowed",
            address.ip()
        );
        return Err(Status::resource_exhausted(message));
    }
    Ok(())
}

/// Ends tunnels whose key is not proved any more: by a revocation, or because the proof has expired.
pub(crate) async fn end_revoked(
    handler: TunnelServiceHandler,
    agents: Arc<Authenticator>,
    mut reloaded: watch::Receiver<u64>,
) {
    // Of the tunnels that were open at the last turn: to read them from the metadata takes longer than to check them.
    let mut known: HashMap<TunnelId, Option<Identity>> = HashMap::new();
    loop {
        tokio::select! {
            changed = reloaded.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
        let tunnels = handler.tunnels();
        let mut open = HashMap::with_capacity(tunnels.len());
        for (number, tunnel) in tunnels.into_iter().enumerate() {
            if number % CHECKS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            let identity = known
                .remove(&tunnel.id())
                .unwrap_or_else(|| kept(tunnel.metadata()));
            if let Some(identity) = &identity
                && let Err(status) = agents.check(identity)
            {
                tracing::info!(
                    key = &*identity.name,
                    reason = status.message(),
                    "tunnel revoked"
                );
                tunnel.close_with(status);
            }
            open.insert(tunnel.id(), identity);
        }
        known = open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "measures, and says how long it takes to read an identity"]
    fn identities_take_time() {
        let identity = Identity {
            name: "device-7".into(),
            proof: Proof::Certificate {
                serial: Arc::from([0x55; 16]),
                expires: SystemTime::now(),
            },
        };
        let mut metadata = MetadataMap::new();
        keep(&identity, &mut metadata);
        let began = std::time::Instant::now();
        for _ in 0..10_000 {
            assert!(kept(&metadata).is_some());
        }
        println!("10,000 identities: {:?}", began.elapsed());
    }

    #[test]
    fn an_identity_is_kept_in_the_metadata_of_the_tunnel() {
        let proofs = [
            Proof::Certificate {
                serial: Arc::from([1, 2]),
                expires: SystemTime::UNIX_EPOCH,
            },
            Proof::Token { hash: [7; 32] },
            Proof::Jwt {
                expires: SystemTime::UNIX_EPOCH,
            },
            Proof::Claimed,
        ];
        for proof in proofs {
            let identity = Identity {
                name: "device 7".into(),
                proof,
            };
            let mut metadata = MetadataMap::new();
            keep(&identity, &mut metadata);
            assert_eq!(kept(&metadata), Some(identity));
        }
    }
}
