//! Servers that are killed, frozen, cut off, compacted or restored.

use std::time::{Duration, Instant};

use tunnel_conformance::FaultProxy;
use tunnel_fleet::directory::{
    Directory, DirectoryError, EtcdDirectory, LeaseId, MAX_WRITES, Update, Write,
};

use super::Server;
use crate::cases::{delete, put, write};
use crate::guarded;
use crate::watched::Watched;

/// The directory over a proxy.
fn over(link: &FaultProxy) -> EtcdDirectory {
    let builder = EtcdDirectory::builder([format!("http://{}", link.address())]);
    builder.build().expect("the settings are valid")
}

/// A server, a link to it, and a watch over the link that follows changes.
async fn watched_over_a_link(options: &[&str]) -> Option<(Server, FaultProxy, Watched)> {
    let server = Server::start(options)?;
    let link = FaultProxy::to(server.address()).await;
    let mut watched = Watched::with_snapshot(&over(&link), "k/").await;
    write(&server.directory(), [put("k/a", "1"), put("k/b", "1")]).await;
    watched.until_value("k/a", "1").await;
    Some((server, link, watched))
}

/// Cuts a watch off, so that it does not come back before the link is opened again.
async fn cut(link: &FaultProxy, watched: &mut Watched) {
    link.set_target(None);
    link.reset();
    watched.until_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_misses_nothing_when_its_server_is_killed_and_restarted() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        let directory = server.directory();
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        for round in 0..3 {
            let writes = [put("k/a", round.to_string()), put("k/b", "x")];
            write(&directory, writes).await;
            if round == 1 {
                // In this round the watch has seen the change, in the others it may not have.
                watched.until_value("k/a", "1").await;
            }
            server.kill();
            watched.until_lost().await;
            server.run();
            watched.until(|watched| !watched.is_lost).await;
        }
        write(&directory, [delete("k/a"), put("k/end", "1")]).await;
        watched.until_value("k/end", "1").await;
        assert_eq!(watched.changes.len(), 8);
        assert_eq!(watched.snapshots, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_noticed_and_its_watches_go_on_when_it_thaws() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        let directory = server.directory();
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        write(&directory, [put("k/a", "1")]).await;
        watched.until_value("k/a", "1").await;
        server.freeze();
        watched.until_lost().await;
        let failed = Directory::renew(&directory, LeaseId(1)).await;
        assert!(matches!(failed, Err(DirectoryError::Unavailable(_))));
        server.thaw();
        watched.until(|watched| !watched.is_lost).await;
        write(&directory, [put("k/a", "2")]).await;
        watched.until_value("k/a", "2").await;
        assert_eq!((watched.changes.len(), watched.snapshots), (2, 1));
    })
    .await;
}

/// A quiet watch is asked for its progress each second. The server must not take offence, as it does with pings.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_keeps_its_connection() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        let link = FaultProxy::to(server.address()).await;
        let mut watched = Watched::with_snapshot(&over(&link), "k/").await;
        let quiet = Duration::from_secs(8);
        let update = tokio::time::timeout(quiet, watched.next()).await;
        assert!(update.is_err(), "{update:?}");
        write(&server.directory(), [put("k/a", "1")]).await;
        watched.until_value("k/a", "1").await;
        assert_eq!(link.accepted(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_were_made_while_a_watch_was_cut_off_come_later() {
    guarded(async {
        let Some((server, link, mut watched)) = watched_over_a_link(&[]).await else {
            return;
        };
        cut(&link, &mut watched).await;
        let directory = server.directory();
        write(&directory, [put("k/a", "2"), delete("k/b")]).await;
        write(&directory, [put("k/c", "1")]).await;
        link.set_target(Some(server.address()));
        // An update without changes says that the store answers.
        let update = watched.next().await;
        let is_empty = matches!(&update, Update::Changes { changes, .. } if changes.is_empty());
        assert!(is_empty, "{update:?}");
        watched.until_value("k/c", "1").await;
        assert_eq!(watched.keys(), ["k/a", "k/c"]);
        assert_eq!((watched.changes.len(), watched.snapshots), (5, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_changes_were_compacted_sees_a_new_snapshot() {
    guarded(async {
        let Some((server, link, mut watched)) = watched_over_a_link(&[]).await else {
            return;
        };
        cut(&link, &mut watched).await;
        let directory = server.directory();
        write(&directory, [put("k/a", "2"), delete("k/b")]).await;
        let revision = write(&directory, [put("k/a", "3")]).await;
        server.compact(revision);
        link.set_target(Some(server.address()));
        watched.until(|watched| watched.snapshots == 2).await;
        assert_eq!(watched.keys(), ["k/a"]);
        assert_eq!(watched.value("k/a"), Some(&b"3"[..]));
        write(&directory, [put("k/a", "4")]).await;
        watched.until_value("k/a", "4").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_store_that_was_restored_sees_a_new_snapshot() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        let directory = server.directory();
        for _ in 0..10 {
            write(&directory, [put("k/a", "old")]).await;
        }
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        server.wipe();
        watched.until_lost().await;
        server.run();
        watched.until(|watched| watched.snapshots == 2).await;
        assert_eq!(watched.keys(), [""; 0]);
        write(&directory, [put("k/a", "new")]).await;
        watched.until_value("k/a", "new").await;
    })
    .await;
}

/// etcd cuts responses at its limit for requests and half a megabyte, in the middle of a transaction too.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_in_fragments_is_seen_in_whole_transactions() {
    const TRANSACTIONS: usize = 40;
    guarded(async {
        let options = ["--max-request-bytes=200000"];
        let Some((server, link, mut watched)) = watched_over_a_link(&options).await else {
            return;
        };
        cut(&link, &mut watched).await;
        let directory = server.directory();
        for transaction in 0..TRANSACTIONS {
            let key = |key| format!("k/{transaction}-{key}");
            let write_of = |number| put(&key(number), vec![b'x'; 1_500]);
            let writes: Vec<Write> = (0..MAX_WRITES).map(write_of).collect();
            write(&directory, writes).await;
        }
        link.set_target(Some(server.address()));
        let all = 2 + TRANSACTIONS * MAX_WRITES;
        watched.until(|watched| watched.changes.len() == all).await;
        assert_eq!(watched.snapshots, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_lost_once_and_found_when_it_comes() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        server.kill();
        let directory = server.directory();
        let mut watched = Watched::new(&directory, "k/");
        let update = watched.next().await;
        assert!(matches!(
            update,
            Update::Lost(DirectoryError::Unavailable(_))
        ));
        let failed = directory.grant(Duration::from_secs(5)).await;
        assert!(matches!(failed, Err(DirectoryError::Unavailable(_))));
        // The next update is awaited while there is still nothing.
        let (update, ()) = tokio::join!(watched.next(), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| server.run());
        });
        assert!(matches!(update, Update::Snapshot { .. }), "{update:?}");
        write(&directory, [put("k/a", "1")]).await;
        watched.until_value("k/a", "1").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_answered_fails_after_its_time() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    guarded(async {
        let limit = Duration::from_millis(300);
        let directory = server.builder().request_timeout(limit).build();
        let directory = directory.expect("the settings are valid");
        write(&directory, [put("k/a", "1")]).await;
        server.freeze();
        // It may answer once more before the signal has stopped it.
        let (failed, elapsed) = loop {
            let start = Instant::now();
            if let Err(failed) = directory.grant(Duration::from_secs(5)).await {
                break (failed, start.elapsed());
            }
        };
        assert!(matches!(failed, DirectoryError::Unavailable(_)));
        assert!(elapsed >= limit);
        server.thaw();
        // The connection that did not answer is left.
        while directory.grant(Duration::from_secs(5)).await.is_err() {}
    })
    .await;
}
