//! One tunnel that a handler has accepted.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tonic::Status;
use tonic::metadata::MetadataMap;
use tunnel_core::{EndReason, Stats};
use tunnel_tonic::{AffinityKey, Direction, Tunnel, TunnelChannel, TunnelId, TunnelInfo};

/// A tunnel that a handler has accepted: its properties, its counters, and ways to end it. Cheap to
/// clone. It does not keep the tunnel open.
#[derive(Clone)]
pub struct AcceptedTunnel {
    tunnel: Tunnel,
    /// Of a reverse tunnel.
    channel: Option<TunnelChannel>,
}

impl AcceptedTunnel {
    pub(crate) fn new(tunnel: Tunnel) -> Self {
        let reverse = tunnel.info().direction() == Direction::Reverse;
        let channel = reverse.then(|| tunnel.channel());
        Self { tunnel, channel }
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// The tunnel's properties together; they outlive the tunnel.
    pub fn info(&self) -> &TunnelInfo {
        self.tunnel.info()
    }

    /// The tunnel's id.
    pub fn id(&self) -> TunnelId {
        self.info().id()
    }

    /// The direction of its calls.
    pub fn direction(&self) -> Direction {
        self.info().direction()
    }

    /// The key by which a reverse tunnel is found, if it has one.
    pub fn key(&self) -> Option<&AffinityKey> {
        self.info().key()
    }

    /// The metadata that the tunnel was opened with.
    pub fn metadata(&self) -> &MetadataMap {
        self.info().metadata()
    }

    /// The address of the peer, if the server knows it.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.info().peer_addr()
    }

    /// When the tunnel was opened.
    pub fn opened_at(&self) -> SystemTime {
        self.info().opened_at()
    }

    /// The tunnel's counters: calls in flight ([`streams`](Stats::streams)), bytes each way, and
    /// more.
    pub fn stats(&self) -> Stats {
        self.tunnel.stats()
    }

    /// Whether the tunnel takes calls: it has opened and not ended, and neither end is draining it.
    pub fn is_ready(&self) -> bool {
        self.tunnel.is_ready()
    }

    /// Why the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<EndReason> {
        self.tunnel.end_reason()
    }

    /// A channel for calls through this tunnel; `None` for a forward tunnel, whose calls come from the
    /// far end. Calls over the stream limit wait: see [`TunnelChannel::queue_calls`].
    pub fn channel(&self) -> Option<TunnelChannel> {
        self.channel.clone()
    }

    /// Ends the tunnel now. Calls in flight fail with UNAVAILABLE, and the far end receives `status` as
    /// the status of the outer call. A device with this library reconnects slowly after
    /// UNAUTHENTICATED, PERMISSION_DENIED, INVALID_ARGUMENT and UNIMPLEMENTED, and as usual after other
    /// codes. OK ends the tunnel gracefully.
    pub fn close_with(&self, status: Status) {
        self.tunnel.close_with(&status);
    }

    /// Drains the tunnel: new calls are refused with UNAVAILABLE, or go to other tunnels. Calls in flight
    /// are ended after `timeout`. Waits until the tunnel is closed, and returns the reason. The drain
    /// goes on when the future is dropped.
    pub async fn drain(&self, timeout: Duration) -> EndReason {
        self.begin_drain(timeout);
        self.closed().await
    }

    pub(crate) fn begin_drain(&self, timeout: Duration) {
        // The clock of the tunnel's timers.
        let now = tokio::time::Instant::now().into_std();
        self.tunnel.drain(now.checked_add(timeout));
    }

    /// Waits until the tunnel is closed: it has ended, and its outer stream with it.
    pub async fn closed(&self) -> EndReason {
        self.tunnel.closed().await
    }
}

impl fmt::Debug for AcceptedTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedTunnel")
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}
