//! The suite that every driver of a directory passes.
//!
//! The functions in `cases` say what a store has to do. Each gets a function that opens the store: every call stands
//! for another gateway. A new driver adds a module below with a function like [`memory::run`], which starts an empty
//! store, and tests of its own for what can happen to it. The tests of etcd need `etcd` and `etcdctl`; without them
//! they print a note and test nothing, and fail if the environment variable CI is set.

mod cases;
mod etcd;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use tunnel_fleet::directory::Directory;

/// Opens a store. Each call is the driver of another gateway.
type Open<'a> = &'a dyn Fn() -> Arc<dyn Directory>;

/// Ends a test that waits for something that does not come.
async fn guarded(test: impl Future<Output = ()>) {
    let limit = Duration::from_secs(120);
    let done = tokio::time::timeout(limit, test).await;
    done.expect("the test waited in vain");
}

macro_rules! tests {
    ($run:ident: $($group:ident: $($case:ident)*;)*) => {$($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $run(async |open| crate::cases::$group::$case(open).await).await;
        }
    )*)*};
}

/// All cases, run by a function.
macro_rules! every_case {
    ($run:ident) => {
        tests! { $run:
            transactions:
                a_write_is_read_with_the_revision_of_its_commit
                a_value_is_any_bytes
                sixty_writes_with_more_conditions_are_one_transaction
                every_condition_holds_or_nothing_is_written
                a_refusal_returns_the_entries_that_were_compared
                of_concurrent_commits_with_one_condition_one_is_made
                deleting_what_is_not_there_is_no_error;
            leases:
                an_expired_lease_deletes_its_keys_as_one_update
                a_revoked_lease_deletes_its_keys_as_one_update
                a_lease_lives_while_it_is_renewed
                renewing_an_ended_lease_says_so
                a_write_with_an_ended_lease_fails_and_changes_nothing
                a_key_that_is_written_without_its_lease_outlives_it;
            watches:
                a_watch_sees_a_snapshot_and_then_changes
                a_late_watch_sees_a_snapshot_of_what_is_left
                changes_come_once_and_in_order_under_concurrent_writes
                a_transaction_is_never_seen_in_part
                a_snapshot_of_many_keys_is_of_one_revision
                a_prefix_ends_where_it_ends
                watches_that_are_not_read_stop_nobody_and_miss_nothing;
        }
    };
}

mod memory {
    use std::sync::Arc;

    use tunnel_fleet::directory::MemoryDirectory;

    use crate::{Open, guarded};

    async fn run(case: impl AsyncFnOnce(Open<'_>)) {
        let directory = MemoryDirectory::new();
        guarded(case(&|| Arc::new(directory.clone()))).await;
    }

    every_case!(run);
}

mod etcd_server {
    use std::sync::Arc;

    use crate::etcd::Server;
    use crate::{Open, guarded};

    async fn run(case: impl AsyncFnOnce(Open<'_>)) {
        let Some(server) = Server::start(&[]) else {
            return;
        };
        guarded(case(&|| Arc::new(server.directory()))).await;
    }

    every_case!(run);
}
