//! One stream of etcd's Watch service.
//!
//! A server that is frozen or cut off says nothing, as one does that has nothing to say. So a silent server is asked
//! for its progress, which it answers at once. Pings of HTTP/2 would not do: etcd ends connections that ping more
//! often than each 5 s (`--grpc-keepalive-min-time`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::client::{Client, Repeat};
use super::endpoints::Connection;
use super::entry::change;
use super::failure::{self, Failure};
use super::proto::etcdserverpb::watch_client::WatchClient;
use super::proto::etcdserverpb::watch_request::RequestUnion;
use super::proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use super::range::KeyRange;
use crate::directory::{Change, DirectoryError};

/// The silence after which the server is asked for its progress.
const QUIET: Duration = Duration::from_secs(1);

/// The time that the server then has for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// A watch on one connection.
pub(super) struct Live {
    client: Arc<Client>,
    connection: Connection,
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// The last revision whose changes were all returned.
    seen: u64,
    /// The changes of a response that goes on in the next.
    fragments: Vec<Change>,
}

impl Live {
    /// Begins a watch of the changes after a revision.
    pub(super) async fn open(
        client: &Arc<Client>,
        range: &KeyRange,
        seen: u64,
    ) -> Result<Self, Failure> {
        let create = WatchCreateRequest {
            key: range.key.clone(),
            range_end: range.end.clone(),
            // Not the one after it: newer versions of etcd do not report the progress of a watch whose first
            // revision is yet to come. What was seen is skipped.
            start_revision: seen as i64,
            progress_notify: true,
            fragment: true,
        };
        let open = |connection, request| open(client.clone(), connection, seen, request);
        let (live, created) = client.call(Repeat::Allowed, create, open).await?;
        check(&created)?;
        Ok(live)
    }

    /// The next changes, and the revision up to which these are all. Only whole revisions are returned.
    pub(super) async fn next(&mut self) -> Result<(Vec<Change>, u64), Failure> {
        loop {
            let response = self.response().await?;
            check(&response)?;
            // The progress that was asked for. Its revision means nothing: in etcd before 3.4.25 and 3.5.8 it may
            // overtake changes.
            if response.watch_id < 0 {
                continue;
            }
            let newest = response.events.last();
            let newest = newest.and_then(|event| event.kv.as_ref());
            let newest = newest.map(|record| record.mod_revision);
            let changes = response.events.into_iter().filter_map(change);
            let seen = self.seen;
            self.fragments
                .extend(changes.filter(|change| change.revision() > seen));
            if response.fragment {
                continue;
            }
            // The header of a response with changes names the newest revision of the store, of which changes may still
            // come. That of one without, which etcd sends every now and then, can be relied on.
            let progress = || response.header.unwrap_or_default().revision;
            let revision = newest.unwrap_or_else(progress) as u64;
            if revision > self.seen {
                self.seen = revision;
                return Ok((std::mem::take(&mut self.fragments), revision));
            }
        }
    }

    async fn response(&mut self) -> Result<WatchResponse, Failure> {
        let response = match timeout(QUIET, self.responses.message()).await {
            Ok(response) => response,
            Err(_) => {
                let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                // If there is no room the connection is stuck, and an earlier request will not be answered.
                let _ = self.requests.try_send(message(progress));
                let silent = |_| Err(Status::unavailable("a watch is not answered"));
                let response = timeout(ANSWER, self.responses.message()).await;
                response.unwrap_or_else(silent)
            }
        };
        let status = match response {
            Ok(Some(response)) => return Ok(response),
            Ok(None) => Status::unavailable("it has ended a watch"),
            Err(status) => status,
        };
        if failure::is_of_endpoint(&status) {
            self.client.failed(&self.connection);
        }
        Err(status.into())
    }
}

async fn open(
    client: Arc<Client>,
    connection: Connection,
    seen: u64,
    request: Request<WatchCreateRequest>,
) -> Result<(Live, WatchResponse), Status> {
    let (metadata, extensions, create) = request.into_parts();
    let (requests, outgoing) = mpsc::channel(2);
    // Cannot fail: there is room, and the receiver is here.
    let _ = requests.try_send(message(RequestUnion::CreateRequest(create)));
    let request = Request::from_parts(metadata, extensions, ReceiverStream::new(outgoing));
    // A response may be as large as the transactions in it.
    let mut watch =
        WatchClient::new(connection.channel.clone()).max_decoding_message_size(usize::MAX);
    let mut responses = watch.watch(request).await?.into_inner();
    let created = responses.message().await?;
    let created = created.ok_or_else(|| Status::unavailable("it has ended a watch"))?;
    let live = Live {
        client,
        connection,
        requests,
        responses,
        seen,
        fragments: Vec::new(),
    };
    Ok((live, created))
}

/// Fails if the server has ended the watch.
fn check(response: &WatchResponse) -> Result<(), Failure> {
    if response.compact_revision > 0 {
        return Err(Failure::Compacted);
    }
    if !response.canceled {
        return Ok(());
    }
    let reason = response.cancel_reason.clone();
    let error = match reason.contains("permission denied") || reason.contains("auth") {
        true => DirectoryError::Denied(reason),
        false => DirectoryError::Unavailable(reason),
    };
    Err(error.into())
}

fn message(request: RequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(request),
    }
}
