//! The channel of a tunnel, for any generated client.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_core::{EndReason, Stats};

use super::body::ResponseBody;
use super::call::{Request, ResponseFuture};
use super::handle::Handle;
use super::head::CallHead;
use super::queue::Place;
use crate::info::{TunnelId, TunnelInfo};
use crate::lifecycle::Lifecycle;
use crate::shared::{Shared, now};

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
    /// (UNAVAILABLE, and [`is_safe_to_retry`](crate::is_safe_to_retry) holds). Dropping the call ends it too.
    #[must_use = "the setting is for the channel returned"]
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.queue = queue;
        self
    }

    /// Makes a call, as [`Service::call`] does, of a request that was taken apart.
    pub fn begin(&self, head: CallHead, body: Body) -> ResponseFuture {
        ResponseFuture::new(Request {
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

    /// Whether calls can be made: the tunnel is ready, has not ended, and neither end is draining it.
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
        async move { wait(&shared, |lifecycle| lifecycle.end_reason().is_some()).await }
    }

    /// Ends the tunnel now: calls in flight fail with UNAVAILABLE. Waits until the far end has
    /// ended its half too, at most five seconds.
    pub async fn close(&self) {
        self.shared().with(|state| state.conn.close());
        wait(self.shared(), |lifecycle| {
            matches!(lifecycle, Lifecycle::Closed(_))
        })
        .await;
    }

    /// Ends the tunnel now and says why: calls in flight fail with UNAVAILABLE and the reason's
    /// message. Where this end accepted the outer call (a gateway), the far end gets the reason as
    /// the outer call's status; where this end dialled there is no way to tell it. A reason of OK
    /// is none. Waits as [`close`](Self::close) does.
    pub async fn close_with(&self, reason: Status) {
        let reason = crate::status::to_wire(&reason);
        self.shared().with(|state| state.conn.close_with(reason));
        wait(self.shared(), |lifecycle| {
            matches!(lifecycle, Lifecycle::Closed(_))
        })
        .await;
    }

    /// Waits until no new call can be made: one of the ends drains the tunnel, or it has ended.
    /// The moment to open the next one, while calls in flight go on.
    ///
    /// The future holds no clone: it does not keep the tunnel open.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared().clone();
        async move {
            shared
                .wait_lifecycle(Lifecycle::is_over_for_new_calls)
                .await;
        }
    }

    /// Ends the tunnel in order: new calls fail with UNAVAILABLE, calls in flight have until
    /// the deadline. Waits for the end, and returns how the tunnel ended.
    pub async fn drain(&self, deadline: Duration) -> EndReason {
        let now = now();
        self.shared()
            .with(|state| state.conn.drain(now, now.checked_add(deadline)));
        wait(self.shared(), |lifecycle| {
            matches!(lifecycle, Lifecycle::Closed(_))
        })
        .await
    }

    /// How many calls something is kept for. Zero when all have ended.
    #[doc(hidden)]
    pub fn kept_calls(&self) -> usize {
        self.shared().slots()
    }
}

/// Waits for one of a tunnel's ends.
async fn wait(shared: &Shared, wanted: impl Fn(&Lifecycle) -> bool) -> EndReason {
    match shared.wait_lifecycle(wanted).await {
        Lifecycle::Ended(reason) | Lifecycle::Closed(reason) => reason,
        // Not reached: `wanted` asks for an end.
        Lifecycle::Opening | Lifecycle::Ready | Lifecycle::Draining => EndReason::Closed,
    }
}

impl fmt::Debug for TunnelChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelChannel")
            .field("info", self.info())
            .field("lifecycle", &self.shared().lifecycle())
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
