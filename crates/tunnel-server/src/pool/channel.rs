//! A channel over reverse tunnels.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;
use tunnel_tonic::pool::{
    Balance, CallOptions, PooledCall, SUSPECT_AFTER, Tunnels, WhenNoTunnel, explained, within,
};
use tunnel_tonic::{AffinityKey, ResponseBody, TunnelChannel, TunnelId};

use super::Pool;
use crate::TunnelHandle;
use crate::registry::Registry;

/// The response of a call through a [`ReverseChannel`]: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub type ReverseResponseFuture = PooledCall<ReverseChannel>;

/// A channel to those who serve through reverse tunnels: all of a gateway, or those of one key.
/// From [`TunnelServiceHandler::as_channel`](crate::TunnelServiceHandler::as_channel) and
/// [`key_as_channel`](crate::TunnelServiceHandler::key_as_channel).
///
/// Clones are cheap. Any generated client takes one, with and without an interceptor. Each call
/// picks a tunnel that is open at that moment; the channel stays good while tunnels come and go.
///
/// # Calls that move
///
/// A call moves to another tunnel by itself, where there is one, if it certainly was not
/// processed: its tunnel was full or draining, ended before the call was sent, or its far end
/// refused it as not processed. A call that was sent and lost its tunnel fails with UNAVAILABLE,
/// and its message says that it may have been processed; whether to make it again is for the
/// caller to know. The response of a call tells which tunnel served it, and whether it moved: see
/// [`ServedBy`](crate::ServedBy).
///
/// What was read of a request is kept until the response begins, so that it can be sent again;
/// once more than [`keep_for_moves`](Self::keep_for_moves) has been read the call stays where it
/// is. A call gives up after 32 moves from tunnels that had not been full.
///
/// # Errors
///
/// Without a tunnel a call fails with UNAVAILABLE and a message that names the key, or waits where
/// [`wait_for_ready`](Self::wait_for_ready_calls) was chosen. When all tunnels are full it waits
/// for room, or fails with RESOURCE_EXHAUSTED where
/// [`queue_calls(false)`](Self::queue_calls) was chosen.
#[derive(Clone)]
pub struct ReverseChannel {
    registry: Arc<Registry>,
    pool: Arc<Pool>,
    balance: Balance,
    suspect_after: Duration,
    options: CallOptions,
}

impl ReverseChannel {
    pub(crate) fn new(registry: Arc<Registry>, pool: Arc<Pool>) -> Self {
        Self {
            registry,
            pool,
            balance: Balance::default(),
            suspect_after: SUSPECT_AFTER,
            options: CallOptions::default(),
        }
    }

    /// How calls of this clone, and of its clones, pick a tunnel. Default:
    /// [`Balance::RoundRobin`].
    #[must_use = "the setting is for the channel returned"]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// After how much silence of its device, with calls waiting, a tunnel is chosen last by calls
    /// of this clone, and of its clones, until it is heard again: it may have vanished. Default:
    /// 1 s.
    #[must_use = "the setting is for the channel returned"]
    pub fn suspect_after(mut self, silence: Duration) -> Self {
        self.suspect_after = silence;
        self
    }

    /// Whether calls of this clone, and of its clones, wait for a tunnel when there is none,
    /// instead of failing with UNAVAILABLE: until their deadline if they have one, else without
    /// end. Default: false. [`WaitForReady`](crate::WaitForReady) sets it for one call.
    #[must_use = "the setting is for the channel returned"]
    pub fn wait_for_ready_calls(mut self, wait: bool) -> Self {
        self.options.when_no_tunnel = match wait {
            true => WhenNoTunnel::Wait,
            false => WhenNoTunnel::Fail,
        };
        self
    }

    /// Whether calls of this clone, and of its clones, wait for room where all tunnels have as
    /// many calls in flight as they may, until their deadline if they have one. If not they fail
    /// at once with RESOURCE_EXHAUSTED. Default: true.
    #[must_use = "the setting is for the channel returned"]
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.options.queue = queue;
        self
    }

    /// How much of a request is kept, in bytes, so that its call can move to another tunnel; a
    /// piece that begins below the limit is kept whole. Zero: nothing, and no call that has a
    /// request moves. Default: 256 KiB.
    #[must_use = "the setting is for the channel returned"]
    pub fn keep_for_moves(mut self, bytes: usize) -> Self {
        self.options.keep = bytes;
        self
    }

    /// The key whose tunnels this leads to; `None` for all.
    pub fn key(&self) -> Option<&AffinityKey> {
        self.pool.key()
    }

    /// Whether a tunnel takes calls now.
    pub fn ready(&self) -> bool {
        !self.pool.is_empty()
    }

    /// Waits until a tunnel takes calls.
    ///
    /// # Errors
    ///
    /// DEADLINE_EXCEEDED when there was none within `deadline`; UNAVAILABLE when the gateway
    /// drains its tunnels. Either names the key.
    pub async fn wait_for_ready(&self, deadline: Duration) -> Result<(), Status> {
        let mut joined = self.subscribe();
        let ready = async {
            while !self.ready() {
                if self.is_closing() {
                    return Err(self.no_tunnel(None));
                }
                // Cannot fail: the sender is borrowed here.
                let _ = joined.changed().await;
            }
            Ok(())
        };
        let Some(at) = Instant::now().checked_add(deadline) else {
            return ready.await;
        };
        let ready = within(at.into_std(), self.runtime(), ready).await;
        ready.unwrap_or_else(|| {
            let message = format!("{} for {deadline:?}", self.what_is_missing());
            Err(Status::deadline_exceeded(message))
        })
    }

    /// The tunnels that take calls now.
    pub fn tunnels(&self) -> Vec<TunnelHandle> {
        let tunnels = self.pool.tunnels().into_iter();
        tunnels
            .filter_map(|tunnel| self.registry.tunnel(tunnel.id()))
            .collect()
    }

    fn what_is_missing(&self) -> String {
        match self.key() {
            Some(key) => format!("no reverse tunnel was open for key {:?}", key.as_str()),
            None => "no reverse tunnel was open".to_owned(),
        }
    }
}

impl Tunnels for ReverseChannel {
    fn pick(&self, tried: &HashSet<TunnelId>) -> Option<TunnelChannel> {
        self.pool.pick(self.balance, self.suspect_after, tried)
    }

    fn subscribe(&self) -> watch::Receiver<()> {
        self.pool.subscribe()
    }

    fn runtime(&self) -> Option<&Handle> {
        self.pool.runtime()
    }

    fn is_closing(&self) -> bool {
        self.registry.is_draining()
    }

    fn no_tunnel(&self, failed: Option<Status>) -> Status {
        let message = self.what_is_missing();
        match failed {
            _ if self.is_closing() => {
                Status::unavailable(format!("{message}: the gateway is draining its tunnels"))
            }
            Some(failed) => {
                let message = format!(
                    "{message} but one that did not take the call: {}",
                    failed.message()
                );
                explained(message, failed)
            }
            None => Status::unavailable(message),
        }
    }

    fn no_tunnel_in_time(&self) -> Status {
        let message = self.what_is_missing();
        Status::deadline_exceeded(format!("{message} before the call's deadline passed"))
    }

    fn all_full(&self, full: Status) -> Status {
        let message = match self.key() {
            Some(key) => format!(
                "the reverse tunnels for key {:?} are full: {}",
                key.as_str(),
                full.message()
            ),
            None => format!("the reverse tunnels are full: {}", full.message()),
        };
        explained(message, full)
    }
}

impl Service<http::Request<Body>> for ReverseChannel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = ReverseResponseFuture;

    /// Always ready: what is wrong is a call's own error.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ReverseResponseFuture {
        PooledCall::new(self.clone(), request, self.options)
    }
}

impl fmt::Debug for ReverseChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReverseChannel")
            .field("key", &self.key())
            .field("balance", &self.balance)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
