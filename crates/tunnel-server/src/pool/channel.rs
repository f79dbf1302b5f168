//! A channel over reverse tunnels.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;
use tunnel_tonic::pool::{
    Balance, CallOptions, PooledCall, SUSPECT_AFTER, Tunnels, WhenNoTunnel, explained, not_sent,
    with_deadline,
};
use tunnel_tonic::{AffinityKey, ResponseBody, TunnelChannel, TunnelId};

use super::Pool;
use crate::AcceptedTunnel;
use crate::registry::Registry;

/// The response of a call through a [`ReverseChannel`]: a future of its headers and body.
///
/// The call begins when this is first polled. Dropping it cancels the call.
pub type ReverseResponseFuture = PooledCall<ReverseChannel>;

/// A channel over the reverse tunnels of a gateway: all of them, or those of one key.
/// From [`TunnelServiceHandler::as_channel`](crate::TunnelServiceHandler::as_channel) and
/// [`key_as_channel`](crate::TunnelServiceHandler::key_as_channel).
///
/// Clones are cheap. Any generated client takes one, with or without an interceptor. Each call picks a
/// tunnel that is open at that moment; the channel stays usable while tunnels open and close.
///
/// # Retries on another tunnel
///
/// A call is retried on another tunnel if it was certainly not processed: its tunnel was full or
/// draining, the tunnel ended before the call was sent, or the peer refused it as not processed. A call
/// that was sent and lost its tunnel fails with UNAVAILABLE, and the message says that it may have been
/// processed. [`ServedBy`](crate::ServedBy) in a response names the tunnel and the number of retries.
///
/// The part of a request that was read is kept until the response begins. If more than
/// [`retry_buffer_limit`](Self::retry_buffer_limit) was read, the call is not retried. A call fails
/// after 32 retries on tunnels that were not full.
///
/// # Errors
///
/// Without a tunnel a call fails with UNAVAILABLE and a message that names the key, or waits, as
/// [`when_no_tunnel`](Self::when_no_tunnel) says. If all tunnels are full it waits, or fails with
/// RESOURCE_EXHAUSTED with [`queue_calls(false)`](Self::queue_calls).
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

    /// How calls of this clone and its clones are balanced. Default:
    /// [`Balance::RoundRobin`].
    #[must_use = "the setting is for the channel returned"]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// For this clone and its clones: a tunnel whose device has been silent for this time, while calls
    /// wait for it, is chosen last until something is received from it. Default: 1 s.
    #[must_use = "the setting is for the channel returned"]
    pub fn suspect_after(mut self, silence: Duration) -> Self {
        self.suspect_after = silence;
        self
    }

    /// What calls of this clone and its clones do without a tunnel.
    /// [`WaitForReady`](crate::WaitForReady) in the extensions of a request overrides it for one call.
    /// Default: [`WhenNoTunnel::Fail`], with UNAVAILABLE.
    #[must_use = "the setting is for the channel returned"]
    pub fn when_no_tunnel(mut self, then: WhenNoTunnel) -> Self {
        self.options.when_no_tunnel = then;
        self
    }

    /// Whether calls of this clone and its clones wait if all tunnels have reached their stream limit,
    /// until their deadline. Otherwise they fail at once with RESOURCE_EXHAUSTED. Default: true.
    #[must_use = "the setting is for the channel returned"]
    pub fn queue_calls(mut self, queue: bool) -> Self {
        self.options.queue_calls = queue;
        self
    }

    /// How much of a request is kept for a retry on another tunnel, in bytes. A piece that begins below
    /// the limit is kept whole. With zero, no call with a request body is retried. Default: 256 KiB.
    #[must_use = "the setting is for the channel returned"]
    pub fn retry_buffer_limit(mut self, bytes: usize) -> Self {
        self.options.retry_buffer_limit = bytes;
        self
    }

    /// The key of the tunnels; `None` for all tunnels.
    pub fn key(&self) -> Option<&AffinityKey> {
        self.pool.key()
    }

    /// Whether a tunnel takes calls now.
    pub fn is_ready(&self) -> bool {
        !self.pool.tunnels.is_empty()
    }

    /// Waits until a tunnel takes calls.
    ///
    /// # Errors
    ///
    /// DEADLINE_EXCEEDED if there was no tunnel within `timeout`, UNAVAILABLE if the gateway drains its
    /// tunnels. The message names the key.
    pub async fn wait_for_ready(&self, timeout: Duration) -> Result<(), Status> {
        let mut joined = self.subscribe();
        let ready = async {
            while !self.is_ready() {
                if self.is_closing() {
                    return Err(self.no_tunnel(None));
                }
                // Cannot fail: the sender is borrowed here.
                let _ = joined.changed().await;
            }
            Ok(())
        };
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return ready.await;
        };
        let ready = with_deadline(deadline.into_std(), self.runtime(), ready).await;
        ready.unwrap_or_else(|| {
            let message = format!("{} for {timeout:?}", self.what_is_missing());
            Err(Status::deadline_exceeded(message))
        })
    }

    /// The tunnels that take calls now.
    pub fn tunnels(&self) -> Vec<AcceptedTunnel> {
        let tunnels = self.pool.tunnels.tunnels().into_iter();
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

#[doc(hidden)]
impl Tunnels for ReverseChannel {
    fn pick(&self, tried: &HashSet<TunnelId>) -> Option<TunnelChannel> {
        self.pool
            .tunnels
            .pick(self.balance, self.suspect_after, tried)
    }

    fn subscribe(&self) -> watch::Receiver<()> {
        self.pool.tunnels.subscribe()
    }

    fn runtime(&self) -> Option<&Handle> {
        self.pool.tunnels.runtime()
    }

    fn is_closing(&self) -> bool {
        self.registry.is_draining()
    }

    fn no_tunnel(&self, failed: Option<Status>) -> Status {
        let message = self.what_is_missing();
        match failed {
            _ if self.is_closing() => {
                let message = format!("{message}: the gateway is draining its tunnels");
                not_sent(Code::Unavailable, message)
            }
            Some(failed) => {
                let message = format!(
                    "{message} but one that did not take the call: {}",
                    failed.message()
                );
                explained(message, failed)
            }
            None => not_sent(Code::Unavailable, message),
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

    /// Always ready: a call reports its own failure.
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
