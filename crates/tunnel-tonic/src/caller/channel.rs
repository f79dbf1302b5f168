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
/// A call through a tunnel that has ended fails with UNAVAILABLE. A call over the limit of
/// concurrent streams waits, or fails with RESOURCE_EXHAUSTED: see
/// [`queue_calls`](Self::queue_calls).
#[derive(Clone)]
#[must_use = "dropping the last clone drains the tunnel"]
pub struct TunnelChannel {
    handle: Arc<Handle>,
    queue: bool,
}

impl TunnelChannel {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle::new(shared)),
            queue: true,
        }
    }

    /// Whether calls of this clone and its clones wait while as many calls are in flight as the limits
    /// of both ends allow. Otherwise they fail at once with RESOURCE_EXHAUSTED. Default: true.
    ///
    /// Waiting calls are first come, first served. The wait ends at the call's deadline
    /// (DEADLINE_EXCEEDED), or when the tunnel ends or drains (UNAVAILABLE, and
    /// [`is_safe_to_retry`](crate::is_safe_to_retry) holds). Dropping the call ends it too.
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

    /// The tunnel's properties.
    pub fn info(&self) -> &TunnelInfo {
        &self.shared().info
    }

    /// The tunnel's counters.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// How long ago the first call was sent after which nothing was received from the far end; `None`
    /// if something was received since. A far end that is alive answers within a second, unless its
    /// handlers are slow and no other call is in flight: heartbeats come every five seconds.
    pub fn unanswered_for(&self) -> Option<Duration> {
        self.shared().unanswered_for()
    }

    /// How long ago anything was last received from the far end; `None` if it sends no heartbeats. This end counts
    /// it also while it is itself suspended.
    pub fn silent_for(&self) -> Option<Duration> {
        self.shared().silent_for()
    }

    /// Why the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.shared().end_reason()
    }

    /// Whether the tunnel takes calls: it has opened and not ended, and neither end is draining it.
    pub fn is_ready(&self) -> bool {
        self.shared().is_ready()
    }

    /// Waits until the tunnel has ended, and returns the reason.
    ///
    /// The future does not keep the tunnel open. A tunnel that is draining takes no calls
    /// ([`is_ready`](Self::is_ready) is false), but it ends only when the last call in flight has
    /// ended.
    pub fn ended(&self) -> impl Future<Output = EndReason> + Send + use<> {
        let shared = self.shared().clone();
        async move { wait(&shared, |lifecycle| lifecycle.end_reason().is_some()).await }
    }

    /// Ends the tunnel now: calls in flight fail with UNAVAILABLE. Waits until the far end has
    /// ended its half of the outer call, for at most five seconds.
    pub async fn close(&self) {
        self.shared().with(|state| state.conn.close());
        wait(self.shared(), |lifecycle| {
            matches!(lifecycle, Lifecycle::Closed(_))
        })
        .await;
    }

    /// Ends the tunnel now with a status: calls in flight fail with UNAVAILABLE and its message. If
    /// this end accepted the outer call (a gateway), the far end receives the status as that of the
    /// outer call; an end that dialled cannot send one. OK is the same as [`close`](Self::close).
    /// Waits as `close` does.
    pub async fn close_with(&self, status: Status) {
        let status = crate::status::to_wire(&status);
        self.shared().with(|state| state.conn.close_with(status));
        wait(self.shared(), |lifecycle| {
            matches!(lifecycle, Lifecycle::Closed(_))
        })
        .await;
    }

    /// Waits until the tunnel takes no new calls: one of the ends drains it, or it has ended. Open the
    /// next tunnel then; calls in flight go on.
    ///
    /// The future does not keep the tunnel open.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared().clone();
        async move {
            shared
                .wait_lifecycle(Lifecycle::is_over_for_new_calls)
                .await;
        }
    }

    /// Ends the tunnel gracefully: new calls fail with UNAVAILABLE, and calls in flight are ended
    /// after `timeout`. Waits for the end, and returns its reason. The drain goes on when the future is
    /// dropped.
    pub async fn drain(&self, timeout: Duration) -> EndReason {
        let now = now();
        self.shared()
            .with(|state| state.conn.drain(now, now.checked_add(timeout)));
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

/// Waits for a state of the lifecycle that has an end reason, and returns the reason.
async fn wait(shared: &Shared, wanted: impl Fn(&Lifecycle) -> bool) -> EndReason {
    match shared.wait_lifecycle(wanted).await {
        Lifecycle::Ended(reason) | Lifecycle::Closed(reason) => reason,
        // Not reached, because `wanted` accepts only ended states.
        _ => EndReason::Closed,
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

    /// Always ready: a call reports the tunnel's failure.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ResponseFuture {
        let (head, body) = CallHead::split(request);
        self.begin(head, body)
    }
}
