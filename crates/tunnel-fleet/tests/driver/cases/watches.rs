//! Watches: a snapshot, and then each change once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tunnel_fleet::directory::{Change, Directory, MAX_WRITES, Update, Write};

use super::{delete, put, write};
use crate::Open;
use crate::watched::Watched;

pub(crate) async fn a_watch_sees_a_snapshot_and_then_changes(open: Open<'_>) {
    let directory = open();
    let first = write(&*directory, [put("s/a", "1")]).await;
    let mut watched = Watched::new(&*open(), "s/");
    let update = watched.next().await;
    let Update::Snapshot { entries, revision } = update else {
        panic!("{update:?}");
    };
    assert_eq!((entries.len(), entries[0].revision), (1, first));
    assert!(revision >= first);
    let second = write(&*directory, [put("s/b", "1"), put("s/a", "2")]).await;
    let third = write(&*directory, [delete("s/a")]).await;
    watched.until(|watched| watched.changes.len() == 3).await;
    let mut seen = watched.changes;
    // The order within a transaction means nothing.
    seen[..2].sort_by(|one, other| one.key().cmp(other.key()));
    let seen: Vec<_> = seen.iter().map(|c| (c.key(), c.revision())).collect();
    assert_eq!(seen, [("s/a", second), ("s/b", second), ("s/a", third)]);
}

pub(crate) async fn a_late_watch_sees_a_snapshot_of_what_is_left(open: Open<'_>) {
    let directory = open();
    let early = Watched::with_snapshot(&*directory, "s/").await;
    assert_eq!(early.keys(), [""; 0]);
    write(&*directory, [put("s/a", "1"), put("s/b", "1")]).await;
    write(&*directory, [put("s/a", "2"), delete("s/b")]).await;
    let late = Watched::with_snapshot(&*directory, "s/").await;
    assert_eq!(late.keys(), ["s/a"]);
    assert_eq!(late.value("s/a"), Some(&b"2"[..]));
    assert!(late.changes.is_empty());
}

pub(crate) async fn changes_come_once_and_in_order_under_concurrent_writes(open: Open<'_>) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 50;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(churn(open(), writer, ROUNDS)))
        .collect();
    // They begin in the middle of it.
    let watches: Vec<_> = (0..3)
        .map(|_| {
            let directory = open();
            tokio::spawn(async move {
                let mut watched = Watched::new(&*directory, "s/");
                watched.until_value("s/end", "1").await;
                watched
            })
        })
        .collect();
    let mut written = BTreeMap::new();
    for writer in writers {
        written.extend(writer.await.expect("it writes"));
    }
    write(&*open(), [put("s/end", "1")]).await;
    for watched in watches {
        let watched = watched.await.expect("it sees everything");
        let snapshot = watched.snapshot.expect("a snapshot");
        let mut seen: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for change in watched.changes.iter().filter(|c| c.key() != "s/end") {
            let keys = seen.entry(change.revision()).or_default();
            keys.push(shown(change));
            keys.sort();
        }
        let after = written.range(snapshot + 1..);
        let after: BTreeMap<u64, Vec<String>> = after.map(|(r, w)| (*r, w.clone())).collect();
        assert_eq!(seen, after);
    }
}

/// Writes and deletes, and returns what by revision.
async fn churn(
    directory: Arc<dyn Directory>,
    writer: usize,
    rounds: usize,
) -> Vec<(u64, Vec<String>)> {
    let mut written = Vec::new();
    for round in 0..rounds {
        let (own, shared) = (format!("s/{writer}"), format!("s/all-{}", round % 3));
        let writes = match round % 5 {
            4 => vec![delete(&own)],
            _ => vec![put(&own, round.to_string()), put(&shared, "x")],
        };
        let mut what: Vec<String> = writes.iter().map(wanted).collect();
        what.sort();
        written.push((write(&*directory, writes).await, what));
    }
    written
}

fn wanted(write: &Write) -> String {
    match write {
        Write::Put { key, value, .. } => format!("{key} = {value:?}"),
        Write::Delete(key) => format!("{key} is gone"),
    }
}

fn shown(change: &Change) -> String {
    match change {
        Change::Put(entry) => format!("{} = {:?}", entry.key, entry.value),
        Change::Delete { key, .. } => format!("{key} is gone"),
    }
}

pub(crate) async fn a_transaction_is_never_seen_in_part(open: Open<'_>) {
    let directory = open();
    let writer = tokio::spawn(async move {
        for round in 0..200 {
            let value = round.to_string();
            let both = [put("s/a", value.clone()), put("s/z", value)];
            write(&*directory, both).await;
        }
        write(&*directory, [delete("s/a"), delete("s/z")]).await;
        write(&*directory, [put("s/end", "1")]).await;
    });
    let is_whole = |watched: &Watched| watched.value("s/a") == watched.value("s/z");
    let directory = open();
    let mut watched = Watched::new(&*directory, "s/");
    while watched.value("s/end").is_none() {
        watched.next().await;
        assert!(is_whole(&watched), "{:?}", watched.entries);
        let late = Watched::with_snapshot(&*directory, "s/").await;
        assert!(is_whole(&late), "{:?}", late.entries);
    }
    writer.await.expect("it writes");
}

pub(crate) async fn a_snapshot_of_many_keys_is_of_one_revision(open: Open<'_>) {
    // More than two pages of a driver that reads in pages.
    const KEYS: usize = 12_000;
    let directory = open();
    let keys: Vec<String> = (0..KEYS).map(|key| format!("s/{key:05}")).collect();
    for keys in keys.chunks(MAX_WRITES) {
        let writes: Vec<Write> = keys.iter().map(|key| put(key, "0")).collect();
        write(&*directory, writes).await;
    }
    let (first, last) = (keys[0].clone(), keys[KEYS - 1].clone());
    let ends = (first.clone(), last.clone());
    let writer = tokio::spawn(async move {
        for round in 1.. {
            let value = round.to_string();
            let both = [put(&ends.0, value.clone()), put(&ends.1, value)];
            write(&*directory, both).await;
            // So that it can be ended: a store in memory never waits.
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        let watched = Watched::with_snapshot(&*open(), "s/").await;
        assert_eq!(watched.entries.len(), KEYS);
        assert_eq!(watched.value(&first), watched.value(&last));
    }
    writer.abort();
}

pub(crate) async fn a_prefix_ends_where_it_ends(open: Open<'_>) {
    let directory = open();
    let keys = [
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a/\u{10ffff}",
        "a0",
        "b",
        "ü/x",
        "ý",
    ];
    let writes: Vec<_> = keys.iter().map(|key| put(key, "1")).collect();
    write(&*directory, writes).await;
    let cases: [(&str, &[&str]); 5] = [
        ("a/", &["a/", "a/b", "a/b/c", "a/\u{10ffff}"]),
        ("a/b", &["a/b", "a/b/c"]),
        ("ü", &["ü/x"]),
        ("none", &[]),
        ("", &keys),
    ];
    for (prefix, expected) in cases {
        let mut watched = Watched::with_snapshot(&*directory, prefix).await;
        assert_eq!(watched.keys(), expected, "the snapshot of {prefix:?}");
        // Changes outside of the prefix are not seen: `Watched` checks it.
        let writes = keys.iter().map(|key| put(key, "2"));
        write(&*directory, writes.collect::<Vec<_>>()).await;
        let end = format!("{prefix}-end");
        write(&*directory, [put(&end, "1")]).await;
        watched.until_value(&end, "1").await;
        assert_eq!(watched.changes.len(), expected.len() + 1, "{prefix:?}");
        write(&*directory, [delete(&end)]).await;
    }
}

pub(crate) async fn watches_that_are_not_read_stop_nobody_and_miss_nothing(open: Open<'_>) {
    let directory = open();
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(Watched::with_snapshot(&*directory, "s/").await);
    }
    write(&*directory, [put("s/a", "begin")]).await;
    for watched in &mut watches {
        watched.until_value("s/a", "begin").await;
    }
    // More than anything between keeps for them.
    for round in 0..100 {
        let mut value = vec![b'x'; 100_000];
        value.extend(format!("{round}").bytes());
        write(&*directory, [put("s/a", value)]).await;
    }
    write(&*directory, [put("s/end", "1")]).await;
    for watched in &mut watches {
        watched.until_value("s/end", "1").await;
        assert_eq!(watched.changes.len(), 102);
    }
}
