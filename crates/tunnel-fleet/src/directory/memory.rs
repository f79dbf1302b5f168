//! A directory in the memory of one process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::{
    Change, Committed, Condition, Directory, DirectoryError, Entry, LeaseId, Transaction, Update,
    Write,
};

/// A directory in the memory of one process. Clones are the same directory.
///
/// For one gateway, which needs no store; for several gateways in one process; and for tests, also with
/// tokio's paused time.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    store: Arc<Mutex<Store>>,
}

#[derive(Debug, Default)]
struct Store {
    revision: u64,
    entries: BTreeMap<String, Kept>,
    leases: HashMap<LeaseId, Lease>,
    last_lease: i64,
    watchers: Vec<Watcher>,
    /// Whether the store answers.
    away: bool,
}

#[derive(Debug)]
struct Kept {
    value: Bytes,
    revision: u64,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    updates: UnboundedSender<Update>,
}

impl MemoryDirectory {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the directory answers, for tests of what happens when it does not. Leases run on meanwhile. Default: true.
    pub fn set_reachable(&self, reachable: bool) {
        let mut store = self.lock();
        store.away = !reachable;
        let Store { watchers, .. } = &mut *store;
        if !reachable {
            watchers.retain(|watcher| watcher.updates.unbounded_send(Update::Lost(away())).is_ok());
            return;
        }
        store.expire();
        for at in 0..store.watchers.len() {
            let snapshot = store.snapshot(&store.watchers[at].prefix);
            let _ = store.watchers[at].updates.unbounded_send(snapshot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T>(
        &self,
        answer: impl FnOnce(&mut Store) -> Result<T, DirectoryError>,
    ) -> Result<T, DirectoryError> {
        let mut store = self.lock();
        if store.away {
            return Err(away());
        }
        store.expire();
        answer(&mut store)
    }

    /// Ends a lease when its time has come, if it is not renewed.
    fn watch_lease(&self, lease: LeaseId) {
        let store = Arc::downgrade(&self.store);
        tokio::spawn(async move {
            loop {
                let ends = {
                    let Some(store) = store.upgrade() else { return };
                    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                    store.expire();
                    let Some(lease) = store.leases.get(&lease) else {
                        return;
                    };
                    lease.ends
                };
                tokio::time::sleep_until(ends).await;
            }
        });
    }
}

fn away() -> DirectoryError {
    DirectoryError::Unavailable("it was made unreachable".into())
}

impl Store {
    /// Ends the leases whose time has come.
    fn expire(&mut self) {
        let now = Instant::now();
        let ended = |(id, lease): (&LeaseId, &Lease)| (lease.ends <= now).then_some(*id);
        let ended: Vec<LeaseId> = self.leases.iter().filter_map(ended).collect();
        for lease in ended {
            self.end(lease);
        }
    }

    fn end(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let of_lease = |(key, kept): (&String, &Kept)| {
            (kept.lease == Some(lease)).then(|| Write::Delete(key.clone()))
        };
        let writes: Vec<Write> = self.entries.iter().filter_map(of_lease).collect();
        self.write(writes);
    }

    fn write(&mut self, writes: Vec<Write>) {
        self.revision += 1;
        let revision = self.revision;
        let mut changes = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let kept = Kept {
                        value: value.clone(),
                        revision,
                        lease,
                    };
                    self.entries.insert(key.clone(), kept);
                    changes.push(Change::Put(Entry {
                        key,
                        value,
                        revision,
                    }));
                }
                Write::Delete(key) => {
                    if self.entries.remove(&key).is_some() {
                        changes.push(Change::Delete { key, revision });
                    }
                }
            }
        }
        let away = self.away;
        self.watchers.retain(|watcher| {
            let seen = |change: &&Change| change.key().starts_with(&watcher.prefix);
            let changes: Vec<Change> = changes.iter().filter(seen).cloned().collect();
            // While the store is away nobody hears of it; a snapshot follows.
            let nothing = changes.is_empty() || away;
            let update = Update::Changes { changes, revision };
            nothing || watcher.updates.unbounded_send(update).is_ok()
        });
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Exists(key) => self.entries.contains_key(key),
            Condition::Absent(key) => !self.entries.contains_key(key),
            Condition::Unchanged { key, revision } => self
                .entries
                .get(key)
                .is_some_and(|kept| kept.revision == *revision),
        }
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).map(|kept| Entry {
            key: key.to_owned(),
            value: kept.value.clone(),
            revision: kept.revision,
        })
    }

    fn snapshot(&self, prefix: &str) -> Update {
        let keys = self.entries.range(prefix.to_owned()..);
        let keys = keys.map(|(key, _)| key);
        let keys = keys.take_while(|key| key.starts_with(prefix));
        Update::Snapshot {
            entries: keys.filter_map(|key| self.entry(key)).collect(),
            revision: self.revision,
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Result<Committed, DirectoryError> {
        let Transaction { conditions, writes } = transaction;
        if !conditions.iter().all(|condition| self.holds(condition)) {
            let keys: BTreeSet<&str> = conditions.iter().map(Condition::key).collect();
            let current = keys.into_iter().filter_map(|key| self.entry(key));
            return Ok(Committed::Refused {
                current: current.collect(),
            });
        }
        let ended = writes.iter().any(|write| match write {
            Write::Put {
                lease: Some(lease), ..
            } => !self.leases.contains_key(lease),
            _ => false,
        });
        if ended {
            return Err(DirectoryError::LeaseEnded);
        }
        self.write(writes);
        Ok(Committed::Done {
            revision: self.revision,
        })
    }
}

impl Change {
    /// The key that has changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the store at which it has changed.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put(entry) => entry.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

impl Condition {
    /// The key that is looked at.
    pub fn key(&self) -> &str {
        match self {
            Self::Exists(key) | Self::Absent(key) | Self::Unchanged { key, .. } => key,
        }
    }
}

impl Directory for MemoryDirectory {
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, DirectoryError>> {
        Box::pin(async move {
            let lease = self.answer(|store| {
                store.last_lease += 1;
                let lease = LeaseId(store.last_lease);
                let ends = Instant::now() + ttl;
                store.leases.insert(lease, Lease { ttl, ends });
                Ok(lease)
            })?;
            self.watch_lease(lease);
            Ok(lease)
        })
    }

    fn renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<bool, DirectoryError>> {
        Box::pin(async move {
            self.answer(|store| {
                let Some(lease) = store.leases.get_mut(&lease) else {
                    return Ok(false);
                };
                lease.ends = Instant::now() + lease.ttl;
                Ok(true)
            })
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(async move {
            self.answer(|store| {
                store.end(lease);
                Ok(())
            })
        })
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, DirectoryError>> {
        Box::pin(async move { self.answer(|store| store.commit(transaction)) })
    }

    fn watch(&self, prefix: String) -> BoxStream<'static, Update> {
        let (updates, watched) = unbounded();
        let mut store = self.lock();
        store.expire();
        // Cannot fail: the receiver is here.
        let _ = updates.unbounded_send(match store.away {
            true => Update::Lost(away()),
            false => store.snapshot(&prefix),
        });
        store.watchers.push(Watcher { prefix, updates });
        // The store lives as long as somebody watches it.
        let kept = self.store.clone();
        watched
            .map(move |update| {
                let _kept = &kept;
                update
            })
            .boxed()
    }
}
