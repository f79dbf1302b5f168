//! One tunnel: what crates that open tunnels and crates that accept them have in common.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tunnel_core::{Config, EndReason, Notice, Offer, Side};

use crate::carrier;
use crate::compression::frames::FrameReader;
use crate::driver::Driver;
use crate::handler::{CallService, Server};
use crate::info::{NetworkRole, TunnelInfo};
use crate::lifecycle::Lifecycle;
use crate::outbound::Outbound;
use crate::shared::{Shared, now};
use crate::telemetry::InjectTrace;
use crate::{MemoryBudget, TunnelChannel, TunnelError};

/// One tunnel whose outer call is being opened, or is open. Cheap to clone.
///
/// For crates that establish tunnels, as `tunnel-client` and `tunnel-server` do. [`new`](Self::new)
/// hands out the tunnel with its two halves: the [`Outbound`] is the body that the outer call sends,
/// the [`Inbound`] is started with the body that the peer sends.
#[derive(Clone, Debug)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

/// The half of a tunnel that reads what the peer sends; from [`Tunnel::new`]. Dropping it closes the tunnel.
#[derive(Debug)]
#[must_use = "a tunnel reads nothing until its inbound half is started"]
pub struct Inbound {
    unstarted: Unstarted,
    role: NetworkRole,
    side: Side,
    reader: FrameReader,
}

/// The state of a tunnel until it is started. Otherwise dropping it closes the tunnel, for those who wait.
#[derive(Debug)]
struct Unstarted {
    shared: Arc<Shared>,
    started: bool,
}

impl Unstarted {
    fn start(mut self) -> Arc<Shared> {
        self.started = true;
        self.shared.clone()
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if !self.started {
            self.shared.lose_driver();
            self.shared.set_closed();
        }
    }
}

impl Inbound {
    /// Accepts frames that the peer compresses, as its headers say
    /// ([`peer_encoding`](crate::outer::peer_encoding)).
    pub fn decompress(&mut self, encoding: Option<CompressionEncoding>) {
        self.reader = FrameReader::new(self.unstarted.shared.max_frame_size(), encoding);
    }

    /// Starts the tunnel's tasks, which read `body`, once the outer call is open.
    ///
    /// A handler serves its calls by `service`, with copies of the extensions; a caller needs
    /// neither. `guard` is dropped when the tunnel is closed, or when the runtime shuts down. Must be
    /// called within a tokio runtime.
    pub fn start(
        self,
        offer: Offer,
        body: Body,
        service: Option<(CallService, http::Extensions)>,
        guard: impl Any + Send,
    ) {
        let shared = self.unstarted.start();
        shared.set_runtime(Handle::current());
        let waits = self.role == NetworkRole::Client && self.side == Side::Handler && offer.ready;
        shared.telemetry.start(waits);
        shared.start(offer);
        let server = service.map(|(service, mut extensions)| {
            extensions.insert(shared.info.clone());
            Server::new(service, extensions)
        });
        carrier::start(Driver::new(
            shared,
            self.role,
            self.side,
            body,
            self.reader,
            server,
            Box::new(guard),
        ));
    }
}

impl Tunnel {
    /// Creates a tunnel at one end of its outer call. Its direction and `role` decide whether this end
    /// is the caller or the handler.
    #[must_use = "dropping the outbound half ends the tunnel"]
    pub fn new(role: NetworkRole, config: Config, info: TunnelInfo) -> (Self, Outbound, Inbound) {
        let side = role.side(info.direction());
        let reader = FrameReader::new(config.max_frame_size(), None);
        let shared = Shared::new(role, config, info);
        let outbound = Outbound::new(shared.clone(), role, side);
        let inbound = Inbound {
            unstarted: Unstarted {
                shared: shared.clone(),
                started: false,
            },
            role,
            side,
            reader,
        };
        (Self { shared }, outbound, inbound)
    }

    /// The tunnel's properties.
    pub fn info(&self) -> &TunnelInfo {
        &self.shared.info
    }

    /// The tunnel's span, for log lines about the tunnel.
    pub fn span(&self) -> &tracing::Span {
        self.shared.telemetry.span()
    }

    /// Caller: sets a function that is called with the span of each call that is made and the metadata to send
    /// with it, for example to add a trace context. The spans then have the level `info`. It must not block.
    /// Set it before the first call; only the first function counts.
    pub fn inject_trace(&self, inject: InjectTrace) {
        self.shared.telemetry.inject_trace(inject);
    }

    /// Labels the tunnel's metrics with its key. Call it before [`start`](Inbound::start). Default: not
    /// labelled, because each key adds time series that are never removed.
    pub fn label_metrics_by_key(&self) {
        self.shared.telemetry.label_by_key();
    }

    /// Counts the tunnel's memory against a budget. Only the first budget counts.
    pub fn share_memory(&self, budget: &MemoryBudget) {
        self.shared.join_budget(budget);
    }

    /// Sets a function to call after each change of the tunnel's state: it is ready, it is draining,
    /// it has ended. The peer is told that the tunnel [routes calls](Self::routed) only after the function
    /// has returned. It is called without a lock, and can use
    /// [`is_ready`](Self::is_ready). Only the first function counts. Set it before
    /// [`start`](Inbound::start) to miss no change.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        self.shared.observe(Box::new(changed));
    }

    /// Whether the tunnel takes calls: it has opened and not ended, and neither end is draining it.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Waits until the tunnel takes no new calls: one of the ends drains it, or it has ended.
    pub async fn draining(&self) {
        self.shared
            .wait_lifecycle(Lifecycle::is_over_for_new_calls)
            .await;
    }

    /// Waits until calls can be made.
    ///
    /// # Errors
    ///
    /// [`TunnelError::Ended`] if the tunnel ended before.
    pub async fn ready(&self) -> Result<(), TunnelError> {
        let lifecycle = self
            .shared
            .wait_lifecycle(|lifecycle| *lifecycle != Lifecycle::Opening)
            .await;
        match lifecycle.end_reason() {
            Some(reason) => Err(TunnelError::Ended(reason.clone())),
            None => Ok(()),
        }
    }

    /// Handler: waits until the caller has announced that it routes calls to this tunnel, or until
    /// the tunnel is draining or has ended. Only for a tunnel whose peer
    /// [announces it](tunnel_core::Offer::ready).
    pub async fn routed(&self) {
        let rank = Lifecycle::Routed.rank();
        self.shared.wait_lifecycle(|now| now.rank() >= rank).await;
    }

    /// Why the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.shared.end_reason()
    }

    /// Waits until the tunnel is closed: it has ended, and its outer stream with it.
    pub async fn closed(&self) -> EndReason {
        let lifecycle = self
            .shared
            .wait_lifecycle(|lifecycle| matches!(lifecycle, Lifecycle::Closed(_)))
            .await;
        lifecycle
            .end_reason()
            .cloned()
            .unwrap_or(EndReason::PeerClosed)
    }

    /// A channel of a caller's tunnel. When all channels of a tunnel are dropped, the tunnel is drained.
    pub fn channel(&self) -> TunnelChannel {
        TunnelChannel::new(self.shared.clone())
    }

    /// Begins to drain the tunnel; see
    /// [`Connection::drain`](tunnel_core::Connection::drain).
    pub fn drain(&self, deadline: Option<Instant>) {
        self.shared.with(|state| state.conn.drain(now(), deadline));
    }

    /// Asks the peer to replace this tunnel by another one; see
    /// [`Connection::retire`](tunnel_core::Connection::retire).
    pub fn retire(&self) -> bool {
        self.shared.with(|state| state.conn.retire(now()))
    }

    /// Tells the peer about tunnels to come; see [`Connection::tell`](tunnel_core::Connection::tell).
    pub fn tell(&self, notice: Notice) -> bool {
        self.shared.with(|state| state.conn.tell(notice))
    }

    /// What the peer has told about tunnels to come, the latest of each field. Only the end that dialled is told.
    pub fn told(&self) -> Notice {
        self.shared.with(|state| state.told())
    }

    /// Ends the tunnel now.
    pub fn close(&self) {
        self.shared.with(|state| state.conn.close());
    }

    /// Ends the tunnel now with a status; see
    /// [`TunnelChannel::close_with`](crate::TunnelChannel::close_with).
    pub fn close_with(&self, reason: &tonic::Status) {
        let reason = crate::status::to_wire(reason);
        self.shared.with(|state| state.conn.close_with(reason));
    }

    /// The tunnel's counters.
    pub fn stats(&self) -> tunnel_core::Stats {
        self.shared.stats()
    }

    /// Caller: how long ago the first call was sent after which nothing was received from the peer;
    /// `None` if something was received since. See
    /// [`Connection::unanswered_since`](tunnel_core::Connection::unanswered_since).
    pub fn unanswered_for(&self) -> Option<Duration> {
        self.shared.unanswered_for()
    }

    /// The number of calls that have state here. Zero when all have ended.
    #[doc(hidden)]
    pub fn kept_calls(&self) -> usize {
        self.shared.slots()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;
    use futures::FutureExt;
    use tonic::metadata::MetadataMap;

    /// A gateway lists a tunnel before it starts it, and may still refuse it.
    #[test]
    fn a_tunnel_that_is_dropped_before_it_is_started_is_closed() {
        let info = TunnelInfo::new(Direction::Reverse, MetadataMap::new(), None, None);
        let (tunnel, outbound, inbound) = Tunnel::new(NetworkRole::Server, Config::default(), info);
        drop((outbound, inbound));
        let closed = tunnel.closed().now_or_never();
        assert!(matches!(closed, Some(EndReason::Error(_))), "{closed:?}");
    }
}
