//! A channel to a device, wherever in the fleet it is.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_server::ReverseChannel;
use tunnel_tonic::pool::{CallOptions, PooledCall, Tunnels, WhenNoTunnel};
use tunnel_tonic::{
    AffinityKey, CallHead, Direction, NotProcessed, ResponseBody, TunnelChannel, TunnelId,
};

use crate::hop::{ABSENT, KEY};
use crate::record::encode_key;
use crate::shared::Shared;

/// The response of a call through a [`FleetChannel`]: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub type FleetResponseFuture = PooledCall<FleetChannel>;

/// A channel to the tunnels of one key, at this gateway or at another one of the fleet; from
/// [`Fleet::channel`](crate::Fleet::channel). Clones are cheap, and any generated client takes one.
///
/// A call goes through a tunnel at this gateway if there is one, and else through another gateway that has
/// one. It is retried on the next tunnel or gateway only if it was certainly not processed, as
/// [`ReverseChannel`] says. A call that was sent and lost its way fails with UNAVAILABLE, and the message says that it
/// may have been processed. So no call is made twice.
///
/// # Errors
///
/// Those of [`ReverseChannel`]. Without a tunnel in the whole fleet a call fails with UNAVAILABLE and names the
/// key; if the directory does not answer, the message says so.
#[derive(Clone)]
pub struct FleetChannel {
    shared: Arc<Shared>,
    /// Over the tunnels of the key that are here.
    own: ReverseChannel,
    options: CallOptions,
}

impl FleetChannel {
    pub(crate) fn new(shared: Arc<Shared>, own: ReverseChannel) -> Self {
        let mut options = CallOptions::default();
        // Fails at once, unless the way to the device is being opened right now.
        options.when_no_tunnel = WhenNoTunnel::WaitForAttempt;
        Self {
            shared,
            own,
            options,
        }
    }

    /// What calls of this clone and its clones do without a tunnel in the fleet. Default: [`WhenNoTunnel::Fail`].
    ///
    /// With that a call still waits for up to a second if the device, or the way to it, was lost within the last second: it may
    /// be on its way to another gateway.
    #[must_use = "the setting is for the channel returned"]
    pub fn when_no_tunnel(mut self, then: WhenNoTunnel) -> Self {
        self.options.when_no_tunnel = match then {
            WhenNoTunnel::Fail => WhenNoTunnel::WaitForAttempt,
            then => then,
        };
        self
    }

    /// Whether calls of this clone and its clones wait if all tunnels are full. Default: true.
    #[must_use = "the setting is for the channel returned"]
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.options.queue_calls = queue;
        self
    }

    /// How much of a request is kept for a retry, in bytes. Default: 256 KiB.
    #[must_use = "the setting is for the channel returned"]
    pub fn retry_buffer_limit(mut self, bytes: usize) -> Self {
        self.options.retry_buffer_limit = bytes;
        self
    }

    /// The key of the tunnels.
    pub fn key(&self) -> &str {
        self.own.key().map_or("", AffinityKey::as_str)
    }

    /// Whether a tunnel takes calls now, here or at another gateway.
    pub fn is_ready(&self) -> bool {
        self.pick(&HashSet::new()).is_some()
    }
}

#[doc(hidden)]
impl Tunnels for FleetChannel {
    fn pick(&self, tried: &HashSet<TunnelId>) -> Option<TunnelChannel> {
        let own = self.own.pick(tried);
        own.or_else(|| self.shared.pick_hop(self.key(), tried))
    }

    fn prepare(&self, tunnel: &TunnelChannel, head: &mut CallHead) {
        if tunnel.info().direction() == Direction::Forward {
            // The last value counts, so that a client cannot name another device.
            head.push(KEY, &encode_key(self.key()));
            self.shared.counters.hops.add();
        }
    }

    fn not_taken(&self, tunnel: TunnelId, status: &Status) {
        let reason = NotProcessed::of(status).map(NotProcessed::reason);
        if reason == Some(ABSENT) {
            self.shared.mark_absent(self.key(), tunnel);
        }
    }

    fn subscribe(&self) -> watch::Receiver<()> {
        self.shared.waiters.subscribe(self.key())
    }

    fn mark(&self) -> u64 {
        self.shared.now()
    }

    fn has_failed_since(&self, began: u64) -> bool {
        !self.shared.is_looking_for(self.key(), began)
    }

    fn runtime(&self) -> Option<&Handle> {
        self.own.runtime()
    }

    fn is_closing(&self) -> bool {
        self.own.is_closing()
    }

    fn no_tunnel(&self, failed: Option<Status>) -> Status {
        self.shared.explain(self.own.no_tunnel(failed))
    }

    fn no_tunnel_in_time(&self) -> Status {
        self.own.no_tunnel_in_time()
    }

    fn all_full(&self, full: Status) -> Status {
        self.own.all_full(full)
    }
}

impl Service<http::Request<Body>> for FleetChannel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = FleetResponseFuture;

    /// Always ready: a call reports its own failure.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> FleetResponseFuture {
        PooledCall::new(self.clone(), request, self.options)
    }
}

impl fmt::Debug for FleetChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetChannel")
            .field("key", &self.key())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
