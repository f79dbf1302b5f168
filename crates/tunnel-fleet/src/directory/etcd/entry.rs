//! Entries and changes from etcd's records.

use bytes::Bytes;

use super::proto::mvccpb::event::EventType;
use super::proto::mvccpb::{Event, KeyValue};
use crate::directory::{Change, Entry};

/// The entry of a pair. `None` if its key is not UTF-8, because this crate did not write it.
pub(super) fn entry(record: KeyValue) -> Option<Entry> {
    Some(Entry {
        key: key(&record)?,
        // A copy: the bytes are a part of the whole response, and would keep all of it.
        value: Bytes::copy_from_slice(&record.value),
        revision: record.mod_revision as u64,
    })
}

/// A change. `None` as for [`entry`].
pub(super) fn change(event: Event) -> Option<Change> {
    let deleted = event.r#type() == EventType::Delete;
    let record = event.kv?;
    if deleted {
        return Some(Change::Delete {
            key: key(&record)?,
            revision: record.mod_revision as u64,
        });
    }
    entry(record).map(Change::Put)
}

fn key(record: &KeyValue) -> Option<String> {
    str::from_utf8(&record.key).ok().map(str::to_owned)
}
