//! A directory in etcd, over its v3 API.
//!
//! - `client` makes calls, over the one connection of `endpoints`.
//! - `watch` goes on for ever; `live` is its present stream, and `range` reads its snapshots.
//! - `transaction` and `entry` translate. `failure` says what errors mean.

mod builder;
mod client;
mod endpoints;
mod entry;
mod failure;
mod live;
mod proto;
mod range;
mod transaction;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::Request;

use self::client::{Client, Repeat};
use self::endpoints::Connection;
use self::proto::etcdserverpb::kv_client::KvClient;
use self::proto::etcdserverpb::lease_client::LeaseClient;
use self::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, TxnRequest,
};
use super::{Committed, Directory, DirectoryError, LeaseId, Transaction, Update};

pub use self::builder::{EtcdBuilder, EtcdConfigError};

/// A directory in [etcd](https://etcd.io), 3.4 or later. Clones share the connection.
///
/// - **Endpoints.** One is used at a time, at first any of them, and as long as it works. When it fails, the next is
///   tried. What may have been carried out is not sent again, so a [`commit`](Directory::commit) can fail when an
///   endpoint does; leases and reads go on at the next. Name etcd's members themselves: its gRPC proxy does not
///   answer all that a watch asks.
/// - **Time.** A request fails after [2 s](EtcdBuilder::request_timeout).
/// - **Leases.** Their time is rounded up to whole seconds. etcd grants no less than about 2 s, and a new leader
///   starts all leases anew.
/// - **Transactions.** etcd takes 1.5 MiB in a request, and 128 conditions or writes in a transaction, unless it was
///   told otherwise. More is [`Unexpected`](DirectoryError::Unexpected).
/// - **Watches.** A watch asks a server that was silent for 1 s for its progress, and leaves one that does not answer
///   within 2 s. etcd ends a watch at a member that has had no leader for three election timeouts. Then the next
///   endpoint is tried after a pause of 25 ms to 1 s. What was compacted meanwhile comes as a new snapshot, as it does
///   when the store was restored from a backup with an earlier revision. Keys that are not UTF-8 are left out. A
///   watch does all this only while its stream is polled.
/// - **Permissions.** A user needs to read and to write everything under the prefixes in use. A certificate that etcd
///   does not take is [`Denied`](DirectoryError::Denied), or [`Unavailable`](DirectoryError::Unavailable) if the
///   connection is gone before the reason is read.
///
/// ```no_run
/// use tunnel_fleet::directory::{EtcdDirectory, EtcdConfigError};
///
/// # fn main() -> Result<(), EtcdConfigError> {
/// let members = ["http://etcd-1:2379", "http://etcd-2:2379", "http://etcd-3:2379"];
/// let directory = EtcdDirectory::builder(members)
///     .user("gateway", "its password")
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EtcdDirectory {
    client: Arc<Client>,
}

impl EtcdDirectory {
    /// Settings for these endpoints: URLs such as `https://etcd-1.example:2379`, of members of the same cluster.
    pub fn builder(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdBuilder {
        EtcdBuilder::new(endpoints.into_iter().map(Into::into).collect())
    }
}

impl Directory for EtcdDirectory {
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, DirectoryError>> {
        Box::pin(async move {
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let request = LeaseGrantRequest {
                ttl: i64::try_from(seconds.max(1)).unwrap_or(i64::MAX),
                id: 0,
            };
            let send = |connection: Connection, request| async move {
                let mut leases = LeaseClient::new(connection.channel);
                Ok(leases.lease_grant(request).await?.into_inner())
            };
            // One that was granted in vain expires.
            let granted = self.client.call(Repeat::Allowed, request, send).await?;
            match granted.error.is_empty() {
                true => Ok(LeaseId(granted.id)),
                false => Err(DirectoryError::Unexpected(granted.error)),
            }
        })
    }

    // A stream for each renewal: a gateway has one lease, and such a stream needs no task that tends it.
    fn renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<bool, DirectoryError>> {
        Box::pin(async move {
            let request = LeaseKeepAliveRequest { id: lease.0 };
            let send = |connection: Connection, request: Request<_>| async move {
                let mut leases = LeaseClient::new(connection.channel);
                let request = request.map(tokio_stream::once);
                let mut renewed = leases.lease_keep_alive(request).await?.into_inner();
                let ended = || tonic::Status::unavailable("a renewal is not answered");
                renewed.message().await?.ok_or_else(ended)
            };
            let renewed = self.client.call(Repeat::Allowed, request, send).await?;
            Ok(renewed.ttl > 0)
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(async move {
            let request = LeaseRevokeRequest { id: lease.0 };
            let send = |connection: Connection, request| async move {
                let mut leases = LeaseClient::new(connection.channel);
                leases.lease_revoke(request).await
            };
            let revoked = self.client.call(Repeat::Allowed, request, send).await;
            match revoked.map_err(DirectoryError::from) {
                Ok(_) | Err(DirectoryError::LeaseEnded) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, DirectoryError>> {
        Box::pin(async move {
            let request = transaction::request(transaction);
            let send = |connection: Connection, request: Request<TxnRequest>| async move {
                let client = KvClient::new(connection.channel);
                // A refusal brings the values of all keys in the conditions.
                let mut client = client.max_decoding_message_size(usize::MAX);
                Ok(client.txn(request).await?.into_inner())
            };
            let answer = self.client.call(Repeat::Forbidden, request, send).await?;
            transaction::committed(answer)
        })
    }

    fn watch(&self, prefix: String) -> BoxStream<'static, Update> {
        watch::watch(self.client.clone(), &prefix)
    }
}
