//! Keys that belong to one device at a time.
//!
//! The record of the owner decides. It is written by compare-and-swap, when a tunnel is admitted and only then. The
//! gateways that hear of another owner end the tunnels of the one before.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataMap;
use tunnel_server::{AcceptedTunnel, Opening};

use crate::directory::{Committed, Condition, Entry, Transaction, Write};
use crate::publish::now;
use crate::record::{OwnerRecord, decode, encode};
use crate::settings::Exclusive;
use crate::shared::Shared;

/// The metadata key in which a device names its session: a random word for each start of it. A device that opens
/// several tunnels, or opens one again, is known by it.
pub const SESSION: &str = "tunnel-session";

/// How long a device keeps a key that it took from another one, if that one wants it back.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How often a swap is tried that others win.
const TRIES: usize = 8;

/// How long calls in flight may go on in a tunnel that its device has replaced.
const DRAIN: Duration = Duration::from_secs(30);

/// What happens to a device that wants a key.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It gets the key.
    Take {
        /// Whether another device loses it.
        from_other: bool,
    },
    /// Another device keeps it.
    Keep,
}

fn decide(owner: Option<&OwnerRecord>, session: &str, lives: bool, now: u64) -> Decision {
    let from_other = match owner {
        Some(owner) => lives && owner.session != session,
        None => false,
    };
    let kept = Duration::as_millis(&KEPT_FOR);
    let taken_at = owner.and_then(|owner| owner.taken_at);
    let recently = taken_at.is_some_and(|at| u128::from(now.saturating_sub(at)) < kept);
    match from_other && recently {
        true => Decision::Keep,
        false => Decision::Take { from_other },
    }
}

fn session_of(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(SESSION)?.to_str().ok()
}

/// Gives a key to the device that opens a tunnel, or refuses the tunnel.
pub(crate) async fn admit(shared: &Arc<Shared>, opening: &Opening) -> Result<(), Status> {
    let Some(key) = opening.key().map(|key| key.as_str()) else {
        return Ok(());
    };
    let session = match session_of(opening.metadata()) {
        Some(session) => session.to_owned(),
        None => format!("{:016x}", fastrand::u64(..)),
    };
    let unknown = || match shared.settings.exclusive {
        Exclusive::Strict => Err(Status::unavailable(
            "the directory does not answer, and this gateway does not accept devices without it",
        )),
        _ => Ok(()),
    };
    let Some(incarnation) = shared.incarnation() else {
        return unknown();
    };
    let mut owner = shared.cache().owner(key).cloned();
    for _ in 0..TRIES {
        let lives = owner.as_ref().is_some_and(|(owner, _)| {
            let cache = shared.cache();
            let gateway = cache.gateway(&owner.incarnation);
            gateway.is_some_and(|gateway| !gateway.lapsed)
        });
        let record = owner.as_ref().map(|(record, _)| record);
        let from_other = match decide(record, &session, lives, now()) {
            Decision::Take { from_other } => from_other,
            Decision::Keep => {
                shared.counters.flaps.add();
                tracing::warn!(
                    tunnel.key = key,
                    "two devices use one exclusive key: the present one keeps it for a minute"
                );
                return Err(Status::aborted(format!(
                    "another device has key {key:?}, and took it less than a minute ago"
                )));
            }
        };
        let taken_at = match (from_other, record) {
            (true, _) => Some(now()),
            (false, Some(record)) if record.session == session => record.taken_at,
            (false, _) => None,
        };
        let path = shared.paths.owner(key);
        let record = OwnerRecord {
            session: session.clone(),
            gateway: shared.name().to_owned(),
            incarnation: incarnation.to_string(),
            taken_at,
        };
        let transaction = Transaction {
            conditions: vec![match &owner {
                Some((_, revision)) => Condition::Unchanged {
                    key: path.clone(),
                    revision: *revision,
                },
                None => Condition::Absent(path.clone()),
            }],
            writes: vec![Write::Put {
                key: path,
                value: encode(&record),
                lease: None,
            }],
        };
        match shared.directory.commit(transaction).await {
            Ok(Committed::Done { .. }) => return Ok(()),
            Ok(Committed::Refused { current }) => {
                let read = |entry: Entry| Some((decode(&entry.value)?, entry.revision));
                owner = current.into_iter().find_map(read);
            }
            Err(_) => return unknown(),
        }
    }
    Err(Status::aborted(format!(
        "too many devices want key {key:?} at once"
    )))
}

/// Ends the tunnels of a key that another device, or a later tunnel of the same device, has taken over.
pub(crate) fn owner_changed(shared: &Arc<Shared>, key: &str) {
    if shared.settings.exclusive == Exclusive::No {
        return;
    }
    let Some((owner, _)) = shared.cache().owner(key).cloned() else {
        return;
    };
    let here = shared.incarnation().as_deref() == Some(&*owner.incarnation);
    let mut tunnels = shared.own_tunnels(key);
    if here {
        // The newest tunnel of the owner stays. While it is being opened, the one before stays too.
        let is_owner =
            |tunnel: &AcceptedTunnel| session_of(tunnel.metadata()) == Some(&owner.session);
        let newest = tunnels.iter().rposition(is_owner);
        tunnels.remove(match newest {
            Some(newest) => newest,
            None if tunnels.is_empty() => return,
            None => tunnels.len() - 1,
        });
    }
    for tunnel in tunnels {
        if session_of(tunnel.metadata()) == Some(&owner.session) {
            tokio::spawn(async move { tunnel.drain(DRAIN).await });
        } else {
            tunnel.close_with(Status::aborted(format!(
                "another device has taken key {key:?}"
            )));
        }
    }
}

/// Gives up a key whose last tunnel here has closed.
pub(crate) fn release(shared: &Arc<Shared>, key: &str) {
    if shared.settings.exclusive == Exclusive::No || !shared.own_tunnels(key).is_empty() {
        return;
    }
    let owner = shared.cache().owner(key).cloned();
    let Some((owner, revision)) = owner else {
        return;
    };
    if shared.incarnation().as_deref() != Some(&*owner.incarnation) {
        return;
    }
    let path = shared.paths.owner(key);
    let shared = shared.clone();
    tokio::spawn(async move {
        let transaction = Transaction {
            conditions: vec![Condition::Unchanged {
                key: path.clone(),
                revision,
            }],
            writes: vec![Write::Delete(path)],
        };
        // If it fails the next device takes the key over.
        let _ = shared.directory.commit(transaction).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(session: &str, taken_at: Option<u64>) -> OwnerRecord {
        OwnerRecord {
            session: session.into(),
            taken_at,
            ..OwnerRecord::default()
        }
    }

    #[test]
    fn the_latest_device_gets_the_key_unless_two_of_them_fight_for_it() {
        let take = |from_other| Decision::Take { from_other };
        let now = 1_000_000;
        assert_eq!(decide(None, "a", false, now), take(false));
        let quiet = owner("a", None);
        assert_eq!(decide(Some(&quiet), "a", true, now), take(false));
        assert_eq!(decide(Some(&quiet), "b", true, now), take(true));
        assert_eq!(decide(Some(&quiet), "b", false, now), take(false));
        let fought = owner("a", Some(now - 59_999));
        assert_eq!(decide(Some(&fought), "b", true, now), Decision::Keep);
        assert_eq!(decide(Some(&fought), "a", true, now), take(false));
        assert_eq!(decide(Some(&fought), "b", false, now), take(false));
        assert_eq!(decide(Some(&fought), "b", true, now + 1), take(true));
    }
}
