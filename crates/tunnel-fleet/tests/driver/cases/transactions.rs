//! Transactions: all or nothing, on conditions.

use std::collections::BTreeMap;

use bytes::Bytes;
use tunnel_fleet::directory::{Committed, Condition, MAX_WRITES, Write};

use super::{absent, commit, delete, exists, put, unchanged, write};
use crate::Open;
use crate::watched::{Watched, entries};

fn is_refused(committed: &Committed) -> bool {
    matches!(committed, Committed::Refused { .. })
}

pub(crate) async fn a_write_is_read_with_the_revision_of_its_commit(open: Open<'_>) {
    let (writer, reader) = (open(), open());
    let first = write(&*writer, [put("k/a", "1"), put("k/b", "1")]).await;
    let second = write(&*writer, [put("k/a", "2")]).await;
    assert!(second > first);
    let watched = Watched::with_snapshot(&*reader, "k/").await;
    let found = watched.entries.values();
    let found: Vec<_> = found.map(|entry| (&*entry.value, entry.revision)).collect();
    assert_eq!(found, [(&b"2"[..], second), (&b"1"[..], first)]);
}

pub(crate) async fn a_value_is_any_bytes(open: Open<'_>) {
    let directory = open();
    let mut watched = Watched::with_snapshot(&*directory, "v/").await;
    let every_byte: Bytes = (0..=255).collect();
    let values = [Bytes::new(), every_byte, vec![0xff; 500_000].into()];
    let keys = ["v/empty", "v/every", "v/large"];
    let writes = std::iter::zip(keys, values.clone());
    let writes: Vec<_> = writes.map(|(key, value)| put(key, value)).collect();
    write(&*directory, writes).await;
    watched.until(|watched| watched.entries.len() == 3).await;
    let snapshot = entries(&*open(), "v/").await;
    for (key, value) in std::iter::zip(keys, values) {
        assert_eq!(watched.value(key), Some(&value[..]));
        assert_eq!(snapshot[key], value);
    }
}

pub(crate) async fn sixty_writes_with_more_conditions_are_one_transaction(open: Open<'_>) {
    let directory = open();
    let mut watched = Watched::with_snapshot(&*directory, "w/").await;
    let keys: Vec<String> = (0..MAX_WRITES).map(|key| format!("w/{key}")).collect();
    let puts: Vec<Write> = keys.iter().map(|key| put(key, "1")).collect();
    // One condition for each key, and one for the gateway itself.
    write(&*directory, [put("gateway", "here")]).await;
    let mut conditions: Vec<Condition> = keys.iter().map(|key| absent(key)).collect();
    conditions.push(exists("gateway"));
    let done = commit(&*directory, conditions.clone(), puts).await;
    let Committed::Done { revision } = done else {
        panic!("{done:?}");
    };
    watched.next().await;
    assert_eq!(watched.keys().len(), MAX_WRITES);

    let deletes: Vec<Write> = keys.iter().map(|key| delete(key)).collect();
    let refused = commit(&*directory, conditions, deletes.clone()).await;
    let Committed::Refused { current } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(current.len(), MAX_WRITES + 1);
    let conditions = keys.iter().map(|key| unchanged(key, revision));
    let conditions: Vec<_> = conditions.collect();
    assert!(!is_refused(&commit(&*directory, conditions, deletes).await));
    watched.next().await;
    assert_eq!(watched.keys(), [""; 0]);
}

pub(crate) async fn every_condition_holds_or_nothing_is_written(open: Open<'_>) {
    let directory = open();
    let old = write(&*directory, [put("c/a", "1")]).await;
    let new = write(&*directory, [put("c/a", "2")]).await;
    let right = [exists("c/a"), absent("c/none"), unchanged("c/a", new)];
    let wrong = [
        absent("c/a"),
        exists("c/none"),
        unchanged("c/a", old),
        unchanged("c/none", new),
        // A revision that no entry has.
        unchanged("c/none", 0),
        unchanged("c/a", u64::MAX),
    ];
    for wrong in wrong {
        let mut conditions = right.to_vec();
        conditions.push(wrong.clone());
        let writes = [put("c/b", "1"), delete("c/a")];
        let committed = commit(&*directory, conditions, writes).await;
        assert!(is_refused(&committed), "{wrong:?}");
    }
    assert_eq!(entries(&*open(), "c/").await.len(), 1);
    let committed = commit(&*directory, right.clone(), []).await;
    assert!(!is_refused(&committed), "conditions alone");
    let writes = [put("c/b", "1"), delete("c/a")];
    assert!(!is_refused(&commit(&*directory, right, writes).await));
    let left = entries(&*open(), "c/").await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["c/b"]);
}

pub(crate) async fn a_refusal_returns_the_entries_that_were_compared(open: Open<'_>) {
    let directory = open();
    let a = write(&*directory, [put("r/a", "1"), put("r/other", "1")]).await;
    let b = write(&*directory, [put("r/b", "2")]).await;
    let conditions = [
        exists("r/a"),
        absent("r/none"),
        unchanged("r/a", a),
        absent("r/b"),
    ];
    let refused = commit(&*directory, conditions, [put("r/other", "2")]).await;
    let Committed::Refused { mut current } = refused else {
        panic!("{refused:?}");
    };
    current.sort_by(|one, other| one.key.cmp(&other.key));
    let current = current.iter();
    let current: Vec<_> = current.map(|e| (&*e.key, &*e.value, e.revision)).collect();
    assert_eq!(current, [("r/a", &b"1"[..], a), ("r/b", &b"2"[..], b)]);
}

pub(crate) async fn of_concurrent_commits_with_one_condition_one_is_made(open: Open<'_>) {
    const TASKS: usize = 8;
    const ROUNDS: usize = 20;
    write(&*open(), [put("n", "0")]).await;
    let tasks = (0..TASKS).map(|_| {
        let directory = open();
        tokio::spawn(async move {
            let mut seen: Option<(u64, usize)> = None;
            let mut made = 0;
            while made < ROUNDS {
                let (revision, count) = seen.unwrap_or_default();
                let next = put("n", (count + 1).to_string());
                // The first is refused, and so reads the present entry.
                let committed = commit(&*directory, [unchanged("n", revision)], [next]).await;
                seen = Some(match committed {
                    Committed::Done { revision } => {
                        made += 1;
                        (revision, count + 1)
                    }
                    Committed::Refused { current } => {
                        let count = String::from_utf8(current[0].value.to_vec());
                        let count = count.expect("a number").parse().expect("a number");
                        (current[0].revision, count)
                    }
                });
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("it counts");
    }
    let count = entries(&*open(), "n").await;
    let expected = BTreeMap::from([("n".to_owned(), (TASKS * ROUNDS).to_string().into())]);
    assert_eq!(count, expected);
}

pub(crate) async fn deleting_what_is_not_there_is_no_error(open: Open<'_>) {
    let directory = open();
    let mut watched = Watched::with_snapshot(&*directory, "d/").await;
    write(&*directory, [delete("d/none"), put("d/a", "1")]).await;
    write(&*directory, [delete("d/none")]).await;
    write(&*directory, [delete("d/a"), put("d/last", "1")]).await;
    watched.until_value("d/last", "1").await;
    // Two puts and one delete: what was not there is not reported.
    assert_eq!(watched.changes.len(), 3);
}
