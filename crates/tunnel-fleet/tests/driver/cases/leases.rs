//! Leases: their keys go when they end.

use std::time::Duration;

use tokio::time::sleep;
use tunnel_fleet::directory::{Change, Directory, DirectoryError, LeaseId, Transaction, Update};

use super::{exists, put, put_with, write};
use crate::Open;
use crate::watched::{Watched, entries};

/// Short enough to wait for its end, long enough that a busy machine can write with it before.
const SHORT: Duration = Duration::from_secs(3);

const LONG: Duration = Duration::from_secs(600);

async fn grant(directory: &dyn Directory, ttl: Duration) -> LeaseId {
    directory.grant(ttl).await.expect("a lease")
}

async fn renew(directory: &dyn Directory, lease: LeaseId) -> bool {
    directory.renew(lease).await.expect("the store answers")
}

async fn revoke(directory: &dyn Directory, lease: LeaseId) {
    let revoked = directory.revoke(lease).await;
    revoked.expect("the store answers");
}

/// Writes keys with a lease and one without, and waits until those with it are deleted by one update.
async fn gone_as_one(
    directory: &dyn Directory,
    watched: &mut Watched,
    lease: LeaseId,
    end: impl AsyncFnOnce(),
) {
    let first = [put_with("l/a", "1", lease), put("l/stays", "1")];
    write(directory, first).await;
    let second = [put_with("l/b", "1", lease), put_with("l/c", "1", lease)];
    write(directory, second).await;
    watched.until(|watched| watched.entries.len() == 4).await;
    end().await;
    let mut deleted = loop {
        match watched.next().await {
            Update::Changes { changes, .. } if changes.is_empty() => {}
            Update::Changes { changes, .. } => break changes,
            other => panic!("{other:?}"),
        }
    };
    deleted.sort_by(|one, other| one.key().cmp(other.key()));
    let is_delete = |change: &Change| matches!(change, Change::Delete { .. });
    assert!(deleted.iter().all(is_delete), "{deleted:?}");
    let keys: Vec<_> = deleted.iter().map(Change::key).collect();
    assert_eq!(keys, ["l/a", "l/b", "l/c"]);
    assert_eq!(watched.keys(), ["l/stays"]);
}

pub(crate) async fn an_expired_lease_deletes_its_keys_as_one_update(open: Open<'_>) {
    let directory = open();
    let mut watched = Watched::with_snapshot(&*open(), "l/").await;
    let lease = grant(&*directory, SHORT).await;
    gone_as_one(&*directory, &mut watched, lease, async || {}).await;
}

pub(crate) async fn a_revoked_lease_deletes_its_keys_as_one_update(open: Open<'_>) {
    let directory = open();
    let mut watched = Watched::with_snapshot(&*open(), "l/").await;
    let lease = grant(&*directory, LONG).await;
    let revoke = async || revoke(&*directory, lease).await;
    gone_as_one(&*directory, &mut watched, lease, revoke).await;
}

pub(crate) async fn a_lease_lives_while_it_is_renewed(open: Open<'_>) {
    let directory = open();
    let mut watched = Watched::with_snapshot(&*open(), "l/").await;
    // The renewed lease is the older one, so without renewals it would end first.
    let renewed = grant(&*directory, SHORT * 2).await;
    let other = grant(&*directory, SHORT * 2).await;
    let writes = [put_with("l/a", "1", renewed), put_with("l/b", "1", other)];
    write(&*directory, writes).await;
    let renewals = async {
        loop {
            assert!(renew(&*directory, renewed).await);
            sleep(SHORT / 30).await;
        }
    };
    let gone = async {
        watched.until_value("l/a", "1").await;
        watched
            .until(|watched| watched.value("l/b").is_none())
            .await;
        watched.keys().join(" ")
    };
    tokio::select! {
        keys = gone => assert_eq!(keys, "l/a"),
        () = renewals => {}
    }
}

pub(crate) async fn renewing_an_ended_lease_says_so(open: Open<'_>) {
    let directory = open();
    let lease = grant(&*directory, LONG).await;
    assert!(renew(&*directory, lease).await);
    revoke(&*directory, lease).await;
    assert!(!renew(&*directory, lease).await);
    // Revoking it again is no error.
    revoke(&*directory, lease).await;
    assert!(!renew(&*directory, LeaseId(4_711)).await);

    let mut watched = Watched::with_snapshot(&*open(), "l/").await;
    let lease = grant(&*directory, SHORT).await;
    write(&*directory, [put_with("l/a", "1", lease)]).await;
    watched.until(|watched| watched.changes.len() == 2).await;
    assert!(!renew(&*directory, lease).await);
}

pub(crate) async fn a_write_with_an_ended_lease_fails_and_changes_nothing(open: Open<'_>) {
    let directory = open();
    let lease = grant(&*directory, LONG).await;
    write(&*directory, [put("l/a", "1")]).await;
    revoke(&*directory, lease).await;
    let transaction = Transaction {
        conditions: vec![exists("l/a")],
        writes: vec![put("l/b", "1"), put_with("l/c", "1", lease)],
    };
    let failed = directory.commit(transaction).await;
    assert_eq!(failed, Err(DirectoryError::LeaseEnded));
    assert_eq!(entries(&*open(), "l/").await.len(), 1);
}

pub(crate) async fn a_key_that_is_written_without_its_lease_outlives_it(open: Open<'_>) {
    let directory = open();
    let lease = grant(&*directory, LONG).await;
    let both = [put_with("l/a", "1", lease), put_with("l/b", "1", lease)];
    write(&*directory, both).await;
    write(&*directory, [put("l/a", "2")]).await;
    revoke(&*directory, lease).await;
    let left = entries(&*open(), "l/").await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["l/a"]);
}
