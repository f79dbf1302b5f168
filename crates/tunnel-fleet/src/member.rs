//! The membership of a gateway: its lease, its name, its record.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::Incarnation;
use crate::directory::{Committed, Condition, DirectoryError, LeaseId, Transaction, Write};
use crate::record::encode;
use crate::shared::{Membership, Shared};

/// The pause after the directory did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a lease is renewed in its time to live.
const RENEWALS: u32 = 4;

/// Why a gateway is not a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Another gateway of this name lives.
    #[error("another gateway of the fleet is named {0:?}: give each its own name")]
    NameTaken(String),
    /// The name is no DNS label.
    #[error("{0:?} is no name for a gateway: use up to 63 letters, digits and hyphens")]
    IllegalName(String),
    /// The fleet was given a handler before.
    #[error("the gateway has joined already")]
    Joined,
}

/// A membership that could not be had.
#[derive(Debug)]
enum Failure {
    Taken,
    Directory(DirectoryError),
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

fn pause() -> Duration {
    PAUSE.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Joins, and joins again whenever the membership is lost. `first` hears how the first attempt ended that was decided.
pub(crate) async fn run(
    shared: Arc<Shared>,
    first: tokio::sync::oneshot::Sender<Result<(), JoinError>>,
) {
    let mut first = Some(first);
    // A gateway that was killed and is back within the lease finds its own name taken.
    let mut patience = Instant::now() + shared.settings.ttl * 2 + PAUSE;
    loop {
        match join(&shared).await {
            Ok(membership) => {
                shared.counters.joined.add();
                tracing::info!(
                    fleet = shared.settings.fleet,
                    gateway = shared.name(),
                    incarnation = &*membership.incarnation,
                    "joined the fleet"
                );
                shared.membership.send_replace(Some(membership.clone()));
                shared.touch_all();
                if let Some(first) = first.take() {
                    let _ = first.send(Ok(()));
                }
                keep(&shared, &membership).await;
                shared.membership.send_replace(None);
                if shared.left.load(Ordering::Relaxed) {
                    return;
                }
                tracing::warn!(gateway = shared.name(), "membership lost: joining again");
                patience = Instant::now() + shared.settings.ttl * 2 + PAUSE;
            }
            Err(Failure::Taken) if Instant::now() >= patience => {
                let error = JoinError::NameTaken(shared.name().to_owned());
                match first.take() {
                    Some(first) => {
                        let _ = first.send(Err(error));
                        return;
                    }
                    None => tracing::error!("{error}; this gateway serves its own devices alone"),
                }
                patience = Instant::now() + Duration::from_secs(60);
            }
            Err(Failure::Taken) => {}
            Err(Failure::Directory(error)) => {
                tracing::warn!(%error, "not a member of the fleet yet");
                // The gateway serves its own devices, and joins later.
                if let Some(first) = first.take() {
                    let _ = first.send(Ok(()));
                }
                patience = Instant::now() + shared.settings.ttl * 2 + PAUSE;
            }
        }
        tokio::time::sleep(pause()).await;
    }
}

/// Takes the name, and writes the record.
async fn join(shared: &Shared) -> Result<Membership, Failure> {
    let incarnation: Incarnation = format!("{:016x}", fastrand::u64(..)).into();
    let lease = shared.directory.grant(shared.settings.ttl).await?;
    let name = shared.paths.name(shared.name());
    let transaction = Transaction {
        conditions: vec![Condition::Absent(name.clone())],
        writes: vec![
            Write::Put {
                key: name,
                value: incarnation.as_bytes().to_vec().into(),
                lease: Some(lease),
            },
            put_record(shared, &incarnation, lease),
        ],
    };
    match shared.directory.commit(transaction).await {
        Ok(Committed::Done { .. }) => Ok(Membership { incarnation, lease }),
        Ok(Committed::Refused { .. }) => {
            let _ = shared.directory.revoke(lease).await;
            Err(Failure::Taken)
        }
        // The commit may have been made. Its lease ends by itself, which is waited for.
        Err(error) => Err(error.into()),
    }
}

fn put_record(shared: &Shared, incarnation: &str, lease: LeaseId) -> Write {
    Write::Put {
        key: shared.paths.gateway(shared.name(), incarnation),
        value: encode(&shared.record()),
        lease: Some(lease),
    }
}

/// Renews the lease until it has ended, and keeps the record true.
async fn keep(shared: &Shared, own: &Membership) {
    let every = shared.settings.ttl / RENEWALS;
    let mut draining = shared.draining.subscribe();
    // A new membership has written what is true at that moment.
    let mut written = shared.record();
    loop {
        let renewed = shared.directory.renew(own.lease).await;
        if shared.left.load(Ordering::Relaxed) || renewed == Ok(false) {
            return;
        }
        if written != shared.record() {
            let record = shared.record();
            let transaction = Transaction {
                conditions: Vec::new(),
                writes: vec![put_record(shared, &own.incarnation, own.lease)],
            };
            match shared.directory.commit(transaction).await {
                Ok(_) => written = record,
                Err(DirectoryError::LeaseEnded) => return,
                Err(error) => tracing::debug!(%error, "the record of this gateway is out of date"),
            }
        }
        let wait = if renewed.is_ok() {
            every
        } else {
            pause().min(every)
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = draining.changed() => {}
        }
    }
}

/// Leaves the fleet: its routes end at once.
pub(crate) async fn leave(shared: &Shared) {
    shared.left.store(true, Ordering::Relaxed);
    let own = shared.membership.send_replace(None);
    if let Some(own) = own
        && let Err(error) = shared.directory.revoke(own.lease).await
    {
        tracing::info!(%error, "the fleet hears of the stop when the lease ends");
    }
}
