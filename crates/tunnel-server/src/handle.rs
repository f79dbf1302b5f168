//! One tunnel that a handler has accepted.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use tonic::Status;
use tunnel_core::{EndReason, Stats};
use tunnel_tonic::{Direction, Tunnel, TunnelChannel, TunnelInfo};

/// A tunnel that a handler has accepted: what is known of it ([`TunnelInfo`], to which this
/// dereferences: id, direction, key, metadata, peer, time of opening), its counters, and ways to
/// end it. Cheap to clone; keeps nothing open.
#[derive(Clone)]
pub struct TunnelHandle {
    tunnel: Tunnel,
    /// Of a reverse tunnel.
    channel: Option<TunnelChannel>,
}

impl TunnelHandle {
    pub(crate) fn new(tunnel: Tunnel) -> Self {
        let reverse = tunnel.info().direction() == Direction::Reverse;
        let channel = reverse.then(|| tunnel.channel());
        Self { tunnel, channel }
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// What is known of the tunnel.
    pub fn info(&self) -> &TunnelInfo {
        self.tunnel.info()
    }

    /// The tunnel's counters: calls in flight ([`streams`](Stats::streams)), bytes each way, and
    /// more.
    pub fn stats(&self) -> Stats {
        self.tunnel.stats()
    }

    /// Whether the tunnel takes calls: it is ready, has not ended, and neither end drains it.
    pub fn takes_calls(&self) -> bool {
        self.tunnel.takes_calls()
    }

    /// How the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.tunnel.end_reason()
    }

    /// A channel for calls through this very tunnel; `None` for a forward tunnel, whose calls
    /// come from the far end. Calls past the limit of concurrent streams wait: see
    /// [`TunnelChannel::queue_calls`].
    pub fn channel(&self) -> Option<TunnelChannel> {
        self.channel.clone()
    }

    /// Ends the tunnel now. Calls in flight fail with UNAVAILABLE; the far end sees `reason` as
    /// the status of the call that carried the tunnel. A device with this library takes UNAUTHENTICATED,
    /// PERMISSION_DENIED, INVALID_ARGUMENT and UNIMPLEMENTED for answers that will not change
    /// soon, and is slow to come back; after any other reason it reconnects as usual. A
    /// reason of OK ends the tunnel gracefully.
    pub fn close(&self, reason: Status) {
        self.tunnel.close_with(&reason);
    }

    /// Drains the tunnel: new calls are refused with UNAVAILABLE, or go to other tunnels;
    /// calls in flight have until the deadline, then they are ended. Waits for the end; the
    /// drain goes on when the future is dropped.
    pub async fn drain(&self, deadline: Duration) -> EndReason {
        self.begin_drain(deadline);
        self.gone().await
    }

    pub(crate) fn begin_drain(&self, deadline: Duration) {
        // By the clock that the tunnel's timers go by.
        let now = tokio::time::Instant::now().into_std();
        self.tunnel.drain(now.checked_add(deadline));
    }

    /// Waits until the tunnel has ended, and its outer stream with it.
    pub async fn gone(&self) -> EndReason {
        self.tunnel.gone().await
    }
}

impl Deref for TunnelHandle {
    type Target = TunnelInfo;

    fn deref(&self) -> &TunnelInfo {
        self.info()
    }
}

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelHandle")
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}
