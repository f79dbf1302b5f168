//! The end of a tunnel that makes calls: a channel for any generated client.

mod body;
mod call;
mod pump;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_core::{EndReason, Metadata, Stats, format_grpc_timeout, parse_grpc_timeout};

use crate::TunnelInfo;
use crate::info::TunnelId;
use crate::life::Life;
use crate::shared::{Shared, now};

pub use body::ResponseBody;
pub use call::ResponseFuture;
use queue::Place;

/// A channel whose calls travel through one tunnel.
///
/// Clones are cheap and share the tunnel. Any generated client takes one, with and without an
/// interceptor. When the last clone is dropped the tunnel is drained: calls in flight go on,
/// then it is closed.
///
/// A call through a tunnel that has ended fails with UNAVAILABLE. A call past the limit of
/// concurrent streams waits for room, or fails with RESOURCE_EXHAUSTED: see
/// [`queue_calls`](Self::queue_calls).
#[derive(Clone)]
pub struct TunnelChannel {
    handle: Arc<Handle>,
    queue: bool,
}

/// What the clones of a channel share, and the calls that were made but have not begun. Calls
/// in flight hold the tunnel itself.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state| state.conn.drain(now(), None));
    }
}

/// What a call begins with, as the wire has it: all of a request but its body. For those who
/// may have to make a call a second time.
#[derive(Clone, Debug)]
pub struct CallHead {
    /// As the request has it, which costs no copy.
    path: Option<PathAndQuery>,
    headers: Metadata,
    /// Why the call cannot be made.
    refused: Option<Box<Status>>,
}

impl CallHead {
    /// Takes a request apart. Its extensions, which do not travel, are dropped.
    pub fn split(request: http::Request<Body>) -> (Self, Body) {
        let (parts, body) = request.into_parts();
        let mut encoding = None;
        let headers = crate::headers::to_wire_and(&parts.headers, |key, value| {
            if key == ENCODING {
                encoding.get_or_insert(value);
            }
        });
        let compressed = encoding.is_some_and(|encoding| encoding != "identity");
        let head = Self {
            path: parts.uri.into_parts().path_and_query,
            headers,
            refused: compressed.then(|| Box::new(crate::message::compressed())),
        };
        (head, body)
    }

    /// How long the call may take from when it was asked for, if it carries a deadline.
    pub fn timeout(&self) -> Option<Duration> {
        self.headers.get(TIMEOUT).and_then(parse_grpc_timeout)
    }

    /// Sets the timeout of a call that carries one, after some of it has passed.
    pub fn set_timeout(&mut self, left: Duration) {
        let left = format_grpc_timeout(left);
        let set = self.headers.iter().map(|(key, value)| match key {
            TIMEOUT => (key, left.as_str()),
            _ => (key, value),
        });
        self.headers = set.collect();
    }
}

const ENCODING: &str = "grpc-encoding";
const TIMEOUT: &str = "grpc-timeout";

impl TunnelChannel {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle { shared }),
            queue: true,
        }
    }

    /// Whether calls of this clone, and of its clones, wait for room when as many calls are in
    /// flight as the limits of both ends allow. If not they fail at once with
    /// RESOURCE_EXHAUSTED. Default: true.
    ///
    /// Waiting calls are served in the order in which they came. The wait ends with the call's
    /// deadline (DEADLINE_EXCEEDED), which goes on running, or when the tunnel ends or drains
    /// (UNAVAILABLE, and [`is_movable`](crate::is_movable) holds). Dropping the call ends it too.
    #[must_use = "the setting is for the channel returned"]
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// Makes a call, as [`Service::call`] does, of a request that was taken apart.
    pub fn begin(&self, head: CallHead, body: Body) -> ResponseFuture {
        ResponseFuture::new(call::Request {
            place: Place::new(self.handle.clone(), self.queue),
            head,
            body,
        })
    }

    pub(crate) fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        self.shared().runtime()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The tunnel's id.
    pub fn id(&self) -> TunnelId {
        self.info().id()
    }

    /// What is known of the tunnel.
    pub fn info(&self) -> &TunnelInfo {
        &self.shared().info
    }

    /// The tunnel's counters.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// For how long nothing was heard from the far end since a call was sent; `None` if something
    /// was. A second is a long time for a far end that is there, unless its handlers are
    /// slow and nothing else is under way: heartbeats come each five seconds.
    pub fn unanswered_for(&self) -> Option<Duration> {
        self.shared().unanswered_for()
    }

    /// How the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.shared().end_reason()
    }

    /// Whether calls can still be made: the tunnel has not ended, and neither end is draining it.
    pub fn is_open(&self) -> bool {
        self.shared().takes_calls()
    }

    /// Waits until the tunnel has ended, for whatever reason, and says which.
    ///
    /// The future holds no clone: it does not keep the tunnel open. While either end drains the
    /// tunnel, calls are already refused ([`is_open`](Self::is_open) is false) and this resolves
    /// only when the last one in flight has ended.
    pub fn closed(&self) -> impl Future<Output = EndReason> + Send + use<> {
        let shared = self.shared().clone();
        async move { wait(&shared, |life| life.end_reason().is_some()).await }
    }

    /// Ends the tunnel now: calls in flight fail with UNAVAILABLE. Waits until the far end has
    /// ended its half too, at most five seconds.
    pub async fn close(&self) {
        self.shared().with(|state| state.conn.close());
        wait(self.shared(), |life| matches!(life, Life::Gone(_))).await;
    }

    /// Ends the tunnel now and says why: calls in flight fail with UNAVAILABLE and the reason's
    /// message. Where this end accepted the outer call (a gateway), the far end gets the reason as
    /// the outer call's status; where this end dialled there is no way to tell it. A reason of OK
    /// is none. Waits as [`close`](Self::close) does.
    pub async fn close_with(&self, reason: Status) {
        let reason = crate::status::to_wire(&reason);
        self.shared().with(|state| state.conn.close_with(reason));
        wait(self.shared(), |life| matches!(life, Life::Gone(_))).await;
    }

    /// Waits until no new call can be made: one of the ends drains the tunnel, or it has ended.
    /// The moment to open the next one, while calls in flight go on.
    ///
    /// The future holds no clone: it does not keep the tunnel open.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared().clone();
        async move {
            shared.wait_life(Life::is_over_for_new_calls).await;
        }
    }

    /// Ends the tunnel in order: new calls fail with UNAVAILABLE, calls in flight have until
    /// the deadline. Waits for the end, and returns how the tunnel ended.
    pub async fn drain(&self, deadline: Duration) -> EndReason {
        let now = now();
        self.shared()
            .with(|state| state.conn.drain(now, now.checked_add(deadline)));
        wait(self.shared(), |life| matches!(life, Life::Gone(_))).await
    }

    /// How many calls something is kept for. Zero when all have ended.
    #[doc(hidden)]
    pub fn kept_calls(&self) -> usize {
        self.shared().slots()
    }
}

/// Waits for one of a tunnel's ends.
async fn wait(shared: &Shared, wanted: impl Fn(&Life) -> bool) -> EndReason {
    match shared.wait_life(wanted).await {
        Life::Ended(reason) | Life::Gone(reason) => reason,
        // Not reached: `wanted` asks for an end.
        Life::Opening | Life::Ready | Life::Draining => EndReason::Closed,
    }
}

impl fmt::Debug for TunnelChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelChannel")
            .field("info", self.info())
            .field("life", &self.shared().life())
            .finish_non_exhaustive()
    }
}

impl Service<http::Request<Body>> for TunnelChannel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready: what is wrong with the tunnel is a call's own error.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ResponseFuture {
        let (head, body) = CallHead::split(request);
        self.begin(head, body)
    }
}
