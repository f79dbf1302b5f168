//! The end of a tunnel that makes calls: a channel for any generated client.

mod body;
mod call;
mod pump;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_core::{EndReason, Stats};

use crate::TunnelInfo;
use crate::info::TunnelId;
use crate::shared::{Life, Shared, now};

pub use body::ResponseBody;
pub use call::ResponseFuture;

/// A channel whose calls travel through one tunnel.
///
/// Clones are cheap and share the tunnel. Any generated client takes one, with and without an
/// interceptor. When the last clone is dropped the tunnel is drained: calls in flight go on,
/// then it is closed.
///
/// A call through a tunnel that has ended fails with UNAVAILABLE; past the limit of
/// concurrent streams it fails with RESOURCE_EXHAUSTED, or waits where that was chosen.
#[derive(Clone)]
pub struct TunnelChannel {
    handle: Arc<Handle>,
}

/// What the clones of a channel share, and the calls that were made but have not begun. Calls
/// in flight hold the tunnel itself.
struct Handle {
    shared: Arc<Shared>,
    /// Places for calls in flight, where calls wait for one.
    places: Option<Arc<Semaphore>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state| state.conn.drain(now(), None));
    }
}

impl TunnelChannel {
    pub(crate) fn new(shared: Arc<Shared>, places: Option<usize>) -> Self {
        Self {
            handle: Arc::new(Handle {
                shared,
                places: places.map(|n| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)))),
            }),
        }
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
        Life::Opening | Life::Ready => EndReason::Closed,
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
        let (parts, body) = request.into_parts();
        let compressed = parts
            .headers
            .get("grpc-encoding")
            .is_some_and(|encoding| encoding != "identity");
        ResponseFuture::new(call::Request {
            handle: self.handle.clone(),
            method: parts.uri.path().to_owned(),
            headers: crate::headers::to_wire(&parts.headers),
            body,
            refused: compressed.then(crate::message::compressed),
        })
    }
}
