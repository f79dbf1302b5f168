//! A store that has no space left.

use tunnel_fleet::directory::{Committed, Directory, DirectoryError, Transaction};

use super::Server;
use crate::cases::{put, write};
use crate::guarded;
use crate::watched::{Watched, entries};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_says_so_and_writes_again_when_there_is_room() {
    let Some(server) = Server::start(&["--quota-backend-bytes=2000000"]) else {
        return;
    };
    guarded(async {
        let directory = server.directory();
        let mut watched = Watched::with_snapshot(&directory, "k/").await;
        let mut revision = 0;
        let error = loop {
            let transaction = Transaction {
                conditions: Vec::new(),
                writes: vec![put("k/a", vec![b'x'; 100_000])],
            };
            match directory.commit(transaction).await {
                Ok(Committed::Done { revision: last }) => revision = last,
                other => break other,
            }
        };
        assert!(matches!(error, Err(DirectoryError::Full(_))), "{error:?}");
        // It still serves reads.
        assert_eq!(entries(&directory, "k/").await.len(), 1);
        server.compact(revision);
        server.control(&["defrag"]);
        server.control(&["alarm", "disarm"]);
        write(&directory, [put("k/end", "1")]).await;
        watched.until_value("k/end", "1").await;
    })
    .await;
}
