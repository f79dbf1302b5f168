//! What the gateways of a fleet share: a small store of keys and values with leases, conditions and watches.
//!
//! A [`Directory`] is a driver. It knows nothing of gateways and devices: records, cache, ordering and sweeping are
//! the same for every driver. `tests/driver` is the suite that each driver passes, and says what a new one has
//! to do.

#[cfg(feature = "etcd")]
mod etcd;
mod memory;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

#[cfg(feature = "etcd")]
pub use etcd::{EtcdBuilder, EtcdConfigError, EtcdDirectory};
pub use memory::MemoryDirectory;

/// The most writes of one transaction. etcd allows 128 by default, and as many conditions.
pub const MAX_WRITES: usize = 60;

/// A store that all gateways of a fleet reach.
///
/// All methods may be called at any time and from any task. A method fails if the store does not answer: the
/// driver gives up by itself after a few seconds and does not retry. Only [`watch`](Self::watch) goes on for ever.
pub trait Directory: Debug + Send + Sync + 'static {
    /// Grants a lease. Keys written with it are deleted when it is not renewed for `ttl`, or is revoked. The store
    /// may choose a longer time.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, DirectoryError>>;

    /// Renews a lease. `false`: it has expired, or was revoked.
    fn renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<bool, DirectoryError>>;

    /// Ends a lease, and deletes its keys. It is no error if it has ended.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), DirectoryError>>;

    /// Makes all writes of a transaction if all its conditions hold, else none. At most [`MAX_WRITES`] writes.
    ///
    /// A commit that fails may have been made all the same.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, DirectoryError>>;

    /// Everything under a prefix, now and for ever.
    ///
    /// The first update with content is a [`Snapshot`](Update::Snapshot). Then come the changes, each once, in the order
    /// of their revisions, with all changes of one transaction together. If the driver loses the store it says
    /// [`Lost`](Update::Lost) once, tries again with pauses, and goes on: with the changes that were missed or
    /// with a snapshot, at the latest when the store answers again. The stream never ends.
    fn watch(&self, prefix: String) -> BoxStream<'static, Update>;
}

/// A lease of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision of the store at which the value was last written. Revisions of one store only grow.
    pub revision: u64,
}

/// What a watch sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Everything there is, in place of what was seen before.
    Snapshot {
        /// The entries, in no order.
        entries: Vec<Entry>,
        /// The revision of the store at which they were read.
        revision: u64,
    },
    /// What has changed since the update before. It may be empty, which says that the store answers.
    Changes {
        /// The changes, in the order in which they were made.
        changes: Vec<Change>,
        /// The revision of the last one, or a later one.
        revision: u64,
    },
    /// The store does not answer. What was seen may be out of date from now on.
    Lost(DirectoryError),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written.
    Put(Entry),
    /// The key was deleted, also by the end of its lease.
    Delete {
        /// The key.
        key: String,
        /// The revision of the store at which that happened.
        revision: u64,
    },
}

/// Writes that are made together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What is written then. Each key at most once.
    pub writes: Vec<Write>,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key exists.
    Exists(String),
    /// The key does not exist.
    Absent(String),
    /// The key was last written at this revision.
    Unchanged {
        /// The key.
        key: String,
        /// The revision of its entry.
        revision: u64,
    },
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// The lease with which the key ends, if any. It fails the commit if it has ended.
        lease: Option<LeaseId>,
    },
    /// Deletes a key. It is no error if there is none.
    Delete(String),
}

/// The result of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All writes were made, at this revision.
    Done {
        /// The revision of the store.
        revision: u64,
    },
    /// A condition did not hold. Nothing was written.
    Refused {
        /// The present entries of the keys in the conditions, as far as they exist, each once.
        current: Vec<Entry>,
    },
}

/// Why a store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It does not answer, or has no leader. It may later.
    #[error("the directory does not answer: {0}")]
    Unavailable(String),
    /// It does not let this gateway in.
    #[error("the directory refuses this gateway: {0}")]
    Denied(String),
    /// It has no space. It serves reads, and writes again when an operator has made room.
    #[error("the directory is full: {0}")]
    Full(String),
    /// The lease of a write has ended.
    #[error("the lease has ended")]
    LeaseEnded,
    /// It answered something that makes no sense.
    #[error("the directory answered something unexpected: {0}")]
    Unexpected(String),
}
