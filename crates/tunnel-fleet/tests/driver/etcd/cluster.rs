//! Three members: one of them, or two, killed or frozen.

use std::time::Duration;

use tunnel_fleet::directory::{
    Committed, Directory, DirectoryError, EtcdDirectory, Transaction, Update,
};

use super::Server;
use crate::cases::put;
use crate::guarded;
use crate::watched::{Watched, entries};

fn directory(servers: &[Server]) -> EtcdDirectory {
    let builder = EtcdDirectory::builder(servers.iter().map(Server::url));
    builder.build().expect("the settings are valid")
}

/// Writes as a gateway does: what failed is written again.
async fn write(directory: &EtcdDirectory, key: &str, value: &str) {
    loop {
        let transaction = Transaction {
            conditions: Vec::new(),
            writes: vec![put(key, value.to_owned())],
        };
        match directory.commit(transaction).await {
            Ok(Committed::Done { .. }) => return,
            Ok(refused) => panic!("{refused:?} without conditions"),
            Err(DirectoryError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The number of the leader.
fn leader(servers: &[Server]) -> usize {
    loop {
        let is_leader = |server: &Server| {
            let status = server.control(&["endpoint", "status", "--write-out=fields"]);
            let field = |name: &str| {
                let mut lines = status.lines();
                let field = lines.find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
                field.map(str::to_owned)
            };
            let leader = field("Leader").expect("a field");
            Some(leader) == field("MemberID")
        };
        if let Some(leader) = servers.iter().position(is_leader) {
            return leader;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_misses_nothing_when_the_leader_is_killed() {
    let Some(mut servers) = Server::cluster() else {
        return;
    };
    guarded(async {
        // Each member serves one of them.
        let directories: Vec<_> = servers
            .iter()
            .map(|server| {
                let others = servers.iter().map(Server::url);
                let urls = [server.url()].into_iter().chain(others);
                EtcdDirectory::builder(urls).build().expect("valid")
            })
            .collect();
        let mut watches = Vec::new();
        for directory in &directories {
            watches.push(Watched::with_snapshot(directory, "k/").await);
        }
        write(&directories[0], "k/a", "1").await;
        let leader = leader(&servers);
        servers[leader].kill();
        for directory in &directories {
            write(directory, "k/a", "2").await;
        }
        write(&directories[0], "k/end", "1").await;
        for watched in &mut watches {
            watched.until_value("k/end", "1").await;
            assert_eq!(watched.snapshots, 1);
            assert_eq!(watched.value("k/a"), Some(&b"2"[..]));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_is_lost_and_heals_with_the_majority() {
    let Some(mut servers) = Server::cluster() else {
        return;
    };
    guarded(async {
        let directory = directory(&servers);
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        write(&directory, "k/a", "1").await;
        watched.until_value("k/a", "1").await;
        servers[0].kill();
        servers[1].kill();
        // The third still runs, and accepts connections.
        watched.until_lost().await;
        let transaction = Transaction {
            conditions: Vec::new(),
            writes: vec![put("k/a", "2")],
        };
        let failed = directory.commit(transaction).await;
        assert!(matches!(failed, Err(DirectoryError::Unavailable(_))));
        servers[0].spawn();
        watched.until(|watched| !watched.is_lost).await;
        write(&directory, "k/a", "3").await;
        watched.until_value("k/a", "3").await;
        assert_eq!(watched.snapshots, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_is_left_for_the_next() {
    let Some(servers) = Server::cluster() else {
        return;
    };
    guarded(async {
        let leader = leader(&servers);
        // A follower: with the leader frozen the others must find a new one first.
        let follower = (leader + 1) % servers.len();
        let both = [&servers[follower], &servers[leader]];
        let directory = EtcdDirectory::builder(both.map(Server::url));
        let directory = directory.build().expect("the settings are valid");
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        servers[follower].freeze();
        write(&directory, "k/a", "1").await;
        watched.until_value("k/a", "1").await;
        assert_eq!(watched.snapshots, 1);
        assert_eq!(entries(&directory, "k/").await.len(), 1);
        let renewed = async {
            let lease = directory.grant(Duration::from_secs(60)).await?;
            Directory::renew(&directory, lease).await
        };
        assert_eq!(renewed.await, Ok(true));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_costs_no_request() {
    let Some(mut servers) = Server::cluster() else {
        return;
    };
    guarded(async {
        let leader = leader(&servers);
        servers[(leader + 1) % 3].kill();
        // Each begins with any of the three.
        for round in 0..10 {
            let directory = directory(&servers);
            let transaction = Transaction {
                conditions: Vec::new(),
                writes: vec![put("k/a", round.to_string())],
            };
            let committed = directory.commit(transaction).await;
            assert!(committed.is_ok(), "{committed:?}");
            let mut watched = Watched::new(&directory, "k/");
            assert!(matches!(watched.next().await, Update::Snapshot { .. }));
        }
    })
    .await;
}
