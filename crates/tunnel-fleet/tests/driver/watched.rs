//! A reader of a watch that keeps a copy of what it sees, and checks each update.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tunnel_fleet::directory::{Change, Directory, Entry, Update};

/// A watch with what it has seen.
///
/// Every update is checked: changes come after a snapshot, in order, none twice, all of a revision together, and the
/// store is lost once before it is heard again.
pub(crate) struct Watched {
    updates: BoxStream<'static, Update>,
    prefix: String,
    /// What exists, as far as is known.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// All changes since the last snapshot.
    pub(crate) changes: Vec<Change>,
    /// The revision of the last snapshot.
    pub(crate) snapshot: Option<u64>,
    pub(crate) snapshots: usize,
    pub(crate) is_lost: bool,
    revision: u64,
}

impl Watched {
    pub(crate) fn new(directory: &dyn Directory, prefix: &str) -> Self {
        Self {
            updates: directory.watch(prefix.to_owned()),
            prefix: prefix.to_owned(),
            entries: BTreeMap::new(),
            changes: Vec::new(),
            snapshot: None,
            snapshots: 0,
            is_lost: false,
            revision: 0,
        }
    }

    /// A watch that has seen its snapshot.
    pub(crate) async fn with_snapshot(directory: &dyn Directory, prefix: &str) -> Self {
        let mut watched = Self::new(directory, prefix);
        watched.until(|watched| watched.snapshots == 1).await;
        watched
    }

    /// The next update.
    pub(crate) async fn next(&mut self) -> Update {
        let update = self.updates.next().await.expect("a watch never ends");
        match &update {
            Update::Snapshot { entries, revision } => self.see_snapshot(entries, *revision),
            Update::Changes { changes, revision } => self.see_changes(changes, *revision),
            Update::Lost(error) => {
                assert!(!self.is_lost, "lost twice in a row: {error}");
                self.is_lost = true;
            }
        }
        update
    }

    /// Reads until something holds.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            self.next().await;
        }
    }

    /// Reads until a key has a value.
    pub(crate) async fn until_value(&mut self, key: &str, value: &str) {
        self.until(|watched| watched.value(key) == Some(value.as_bytes()))
            .await;
    }

    /// Reads until the store is lost.
    pub(crate) async fn until_lost(&mut self) {
        self.until(|watched| watched.is_lost).await;
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|entry| &entry.value[..])
    }

    /// The keys that exist.
    pub(crate) fn keys(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    fn see_snapshot(&mut self, entries: &[Entry], revision: u64) {
        self.is_lost = false;
        self.snapshots += 1;
        self.changes.clear();
        self.snapshot = Some(revision);
        self.revision = revision;
        self.entries.clear();
        for entry in entries {
            assert!(entry.key.starts_with(&self.prefix), "{entry:?}");
            assert!(entry.revision <= revision, "{entry:?} after {revision}");
            let twice = self.entries.insert(entry.key.clone(), entry.clone());
            assert_eq!(twice, None, "a key is in a snapshot twice");
        }
    }

    fn see_changes(&mut self, changes: &[Change], revision: u64) {
        self.is_lost = false;
        assert!(self.snapshot.is_some(), "changes before a snapshot");
        let mut last = None;
        for change in changes {
            let at = change.revision();
            assert!(change.key().starts_with(&self.prefix), "{change:?}");
            assert!(at > self.revision, "{change:?} again or in two parts");
            assert!(last <= Some(at), "{change:?} after {last:?}");
            last = Some(at);
            match change {
                Change::Put(entry) => {
                    self.entries.insert(entry.key.clone(), entry.clone());
                }
                Change::Delete { key, .. } => {
                    let gone = self.entries.remove(key);
                    assert!(gone.is_some(), "{key} is deleted twice");
                }
            }
        }
        let newest = last.unwrap_or(self.revision);
        assert!(revision >= newest, "{revision} before {newest}");
        self.revision = revision;
        self.changes.extend_from_slice(changes);
    }
}

/// Everything under a prefix at present.
pub(crate) async fn entries(directory: &dyn Directory, prefix: &str) -> BTreeMap<String, Bytes> {
    let watched = Watched::with_snapshot(directory, prefix).await;
    let entries = watched.entries.into_iter();
    entries.map(|(key, entry)| (key, entry.value)).collect()
}
