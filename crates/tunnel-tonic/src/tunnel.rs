//! A tunnel before it is a channel or a handler: what those who dial and those who accept
//! have in common.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tonic::body::Body;
use tunnel_core::{Config, EndReason, Offer, Side};

use crate::carrier;
use crate::driver::Driver;
use crate::handler::{CallService, Server};
use crate::info::TunnelInfo;
use crate::life::Life;
use crate::outbound::{NetworkRole, Outbound};
use crate::shared::{Shared, now};
use crate::{Direction, MemoryBudget, TunnelChannel};

/// One tunnel whose outer call is being opened, or is open.
///
/// For crates that establish tunnels; `tunnel-client` and `tunnel-server` are such. The steps:
/// [`new`](Self::new), put [`outbound`](Self::outbound) where the outer call sends,
/// and, once the peer's headers are known, [`start`](Self::start).
#[derive(Clone, Debug)]
pub struct Tunnel {
    shared: Arc<Shared>,
    role: NetworkRole,
    side: Side,
    config: Config,
}

impl Tunnel {
    /// A tunnel of a direction, at one end of its outer call. Which side of the calls this is
    /// follows from the two.
    pub fn new(role: NetworkRole, config: Config, info: TunnelInfo) -> Self {
        let side = match (info.direction(), role) {
            (Direction::Forward, NetworkRole::Client)
            | (Direction::Reverse, NetworkRole::Server) => Side::Caller,
            (Direction::Forward, NetworkRole::Server)
            | (Direction::Reverse, NetworkRole::Client) => Side::Handler,
        };
        Self {
            shared: Shared::new(side, config.clone(), info),
            role,
            side,
            config,
        }
    }

    /// What this end sends: the body of the outer request or response. To be taken once;
    /// dropping it ends the tunnel.
    pub fn outbound(&self) -> Outbound {
        Outbound::new(self.shared.clone(), self.role, self.side)
    }

    /// What is known of the tunnel.
    pub fn info(&self) -> &TunnelInfo {
        &self.shared.info
    }

    /// The outer call is open: starts the tunnel's task, which reads `inbound`.
    ///
    /// A handler's calls are served by `service`, with copies of `extensions`; a caller needs
    /// neither. `guard` is dropped when the tunnel has gone, also if that is because the runtime
    /// shuts down. Must be called within a tokio runtime.
    pub fn start(
        &self,
        offer: Offer,
        inbound: Body,
        service: Option<(CallService, http::Extensions)>,
        guard: impl Any + Send,
    ) {
        self.shared.set_runtime(Handle::current());
        self.shared.with(|state| state.start(now(), offer));
        let server = service.map(|(service, mut extensions)| {
            extensions.insert(self.shared.info.clone());
            Server::new(service, extensions)
        });
        carrier::start(Driver::new(
            self.shared.clone(),
            self.role,
            self.side,
            inbound,
            self.config.max_frame_size(),
            server,
            Box::new(guard),
        ));
    }

    /// Counts what the tunnel holds against a budget that it shares with others. Only the first
    /// budget given counts.
    pub fn share_memory(&self, budget: &MemoryBudget) {
        self.shared.join_budget(budget);
    }

    /// Has a function called after each change of what the tunnel can do: it becomes ready, one
    /// of its ends begins to drain it, it ends. No lock is held meanwhile; the function looks for
    /// itself, with [`takes_calls`](Self::takes_calls). Only the first function given counts, and
    /// it must be given before [`start`](Self::start) to miss nothing.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        self.shared.observe(Box::new(changed));
    }

    /// Whether calls can be made, or may come: the tunnel is ready, has not ended, and neither
    /// end is draining it.
    pub fn takes_calls(&self) -> bool {
        self.shared.takes_calls()
    }

    /// Waits until no new call is possible: one of the ends drains the tunnel, or it has ended.
    pub async fn draining(&self) {
        self.shared.wait_life(Life::is_over_for_new_calls).await;
    }

    /// Waits until calls can be made.
    ///
    /// # Errors
    ///
    /// How the tunnel ended before.
    pub async fn ready(&self) -> Result<(), EndReason> {
        let life = self.shared.wait_life(|life| *life != Life::Opening).await;
        life.end_reason().cloned().map_or(Ok(()), Err)
    }

    /// How the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.shared.end_reason()
    }

    /// Waits until the tunnel has ended, and its outer stream with it.
    pub async fn gone(&self) -> EndReason {
        let life = self
            .shared
            .wait_life(|life| matches!(life, Life::Gone(_)))
            .await;
        life.end_reason().cloned().unwrap_or(EndReason::PeerClosed)
    }

    /// The channel of a caller's tunnel. To be taken once and then cloned: when all clones are
    /// dropped the tunnel is drained.
    pub fn channel(&self) -> TunnelChannel {
        TunnelChannel::new(self.shared.clone())
    }

    /// Begins to end the tunnel in order; see
    /// [`Connection::drain`](tunnel_core::Connection::drain).
    pub fn drain(&self, deadline: Option<Instant>) {
        self.shared.with(|state| state.conn.drain(now(), deadline));
    }

    /// Asks the far end for another tunnel in place of this one; see
    /// [`Connection::retire`](tunnel_core::Connection::retire).
    pub fn retire(&self) -> bool {
        self.shared.with(|state| state.conn.retire(now()))
    }

    /// Ends the tunnel now.
    pub fn close(&self) {
        self.shared.with(|state| state.conn.close());
    }

    /// Ends the tunnel now and says why; see
    /// [`TunnelChannel::close_with`](crate::TunnelChannel::close_with).
    pub fn close_with(&self, reason: &tonic::Status) {
        let reason = crate::status::to_wire(reason);
        self.shared.with(|state| state.conn.close_with(reason));
    }

    /// The tunnel's counters.
    pub fn stats(&self) -> tunnel_core::Stats {
        self.shared.stats()
    }

    /// Caller: for how long nothing was heard from the far end since a call was sent; `None` if
    /// something was. See
    /// [`Connection::unanswered_since`](tunnel_core::Connection::unanswered_since).
    pub fn unanswered_for(&self) -> Option<Duration> {
        self.shared.unanswered_for()
    }

    /// How many calls something is kept for. Zero when all have ended.
    #[doc(hidden)]
    pub fn kept_calls(&self) -> usize {
        self.shared.slots()
    }
}
