//! What every store has to do.

pub(crate) mod leases;
pub(crate) mod transactions;
pub(crate) mod watches;

use bytes::Bytes;
use tunnel_fleet::directory::{Committed, Condition, Directory, LeaseId, Transaction, Write};

pub(crate) fn put(key: &str, value: impl Into<Bytes>) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: value.into(),
        lease: None,
    }
}

pub(crate) fn put_with(key: &str, value: impl Into<Bytes>, lease: LeaseId) -> Write {
    Write::Put {
        key: key.to_owned(),
        value: value.into(),
        lease: Some(lease),
    }
}

pub(crate) fn delete(key: &str) -> Write {
    Write::Delete(key.to_owned())
}

pub(crate) fn exists(key: &str) -> Condition {
    Condition::Exists(key.to_owned())
}

pub(crate) fn absent(key: &str) -> Condition {
    Condition::Absent(key.to_owned())
}

pub(crate) fn unchanged(key: &str, revision: u64) -> Condition {
    Condition::Unchanged {
        key: key.to_owned(),
        revision,
    }
}

/// Commits with conditions.
pub(crate) async fn commit(
    directory: &dyn Directory,
    conditions: impl Into<Vec<Condition>>,
    writes: impl Into<Vec<Write>>,
) -> Committed {
    let transaction = Transaction {
        conditions: conditions.into(),
        writes: writes.into(),
    };
    let committed = directory.commit(transaction).await;
    committed.expect("the store answers")
}

/// Writes without conditions, and returns the revision.
pub(crate) async fn write(directory: &dyn Directory, writes: impl Into<Vec<Write>>) -> u64 {
    match commit(directory, [], writes).await {
        Committed::Done { revision } => revision,
        refused @ Committed::Refused { .. } => panic!("{refused:?} without conditions"),
    }
}
