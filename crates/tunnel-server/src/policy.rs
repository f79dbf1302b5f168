//! The settings of a handler that concern tunnels, and its hooks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tunnel_core::{EndReason, NOT_PROCESSED_KEY, Stats};
use tunnel_tonic::outer::RETRY_PUSHBACK;
use tunnel_tonic::telemetry::InjectTrace;
use tunnel_tonic::{AffinityKey, TunnelInfo};

use crate::{AcceptedTunnel, Opening};

/// The default limit on tunnels of one connection. A device has one or a few; a proxy with many devices
/// on one connection has its own limit of streams (HAProxy: 100).
const MAX_PER_CONNECTION: usize = 1024;

/// The default limit on tunnels of one key or one address. All devices behind a load balancer or a NAT
/// share an address.
const MAX_PER_PEER: usize = 10_000;

/// The default memory budget of all tunnels, in bytes.
const MEMORY_BUDGET: usize = 1 << 30;

/// How long calls in flight may go on by default in a tunnel that has reached its maximum age.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

type KeyOf = dyn Fn(&Opening) -> Option<AffinityKey> + Send + Sync;
type Admit = dyn Fn(Opening) -> BoxFuture<'static, Result<(), Status>> + Send + Sync;
type ReturnSpread = dyn Fn(usize) -> Duration + Send + Sync;
type OnOpen = dyn Fn(&AcceptedTunnel) + Send + Sync;
type OnClose = dyn Fn(&TunnelInfo, &EndReason, &Stats) + Send + Sync;

/// What happens to a new tunnel whose key has reached its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenKeyIsFull {
    /// The new tunnel is refused with RESOURCE_EXHAUSTED.
    #[default]
    Refuse,
    /// The oldest tunnel of the key is closed with ABORTED, and the new one is accepted. For devices that
    /// reconnect before the loss of their last connection was noticed. Two devices with the same key
    /// would close each other's tunnels.
    CloseOldest,
}

/// Why a tunnel is not accepted.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The name of the limit or the reason, for labels.
    pub(crate) name: &'static str,
    /// The status that the peer receives.
    pub(crate) status: Status,
}

impl Refusal {
    pub(crate) fn new(name: &'static str, status: Status) -> Self {
        Self { name, status }
    }

    /// By a server that is about to stop. The far end can open the tunnel elsewhere at once.
    pub(crate) fn draining() -> Self {
        let pushback = Duration::from_millis(fastrand::u64(50..=150));
        let message = "the server is draining its tunnels";
        Self::unavailable("draining", message, pushback)
    }

    /// Over the limit on openings at once.
    pub(crate) fn too_many_openings(pushback: Duration) -> Self {
        let message = "the server opens as many tunnels as max_openings_at_once allows";
        Self::unavailable("max_openings_at_once", message, pushback)
    }

    /// With the time after which the far end may try again.
    fn unavailable(name: &'static str, message: &str, pushback: Duration) -> Self {
        let millis = u64::try_from(pushback.as_millis()).unwrap_or(u64::MAX);
        let mut metadata = MetadataMap::new();
        metadata.insert(RETRY_PUSHBACK, millis.into());
        metadata.insert(NOT_PROCESSED_KEY, MetadataValue::from_static("1"));
        let status = Status::with_metadata(Code::Unavailable, message, metadata);
        Self::new(name, status)
    }
}

/// The settings of a handler that concern tunnels, and its hooks.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) reverse: bool,
    pub(crate) max_tunnels: usize,
    pub(crate) max_per_key: usize,
    pub(crate) max_per_connection: usize,
    pub(crate) max_per_address: usize,
    pub(crate) max_openings_at_once: Option<usize>,
    pub(crate) return_spread: Option<Arc<ReturnSpread>>,
    pub(crate) max_tunnel_age: Option<Duration>,
    pub(crate) drain_timeout: Duration,
    pub(crate) memory_budget: usize,
    pub(crate) metrics_by_key: bool,
    pub(crate) inject: Option<InjectTrace>,
    pub(crate) when_key_is_full: WhenKeyIsFull,
    pub(crate) key_of: Option<Arc<KeyOf>>,
    pub(crate) admit: Vec<Arc<Admit>>,
    pub(crate) on_open: Vec<Arc<OnOpen>>,
    pub(crate) on_close: Vec<Arc<OnClose>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reverse: true,
            max_tunnels: usize::MAX,
            max_per_key: MAX_PER_PEER,
            max_per_connection: MAX_PER_CONNECTION,
            max_per_address: MAX_PER_PEER,
            max_openings_at_once: None,
            return_spread: None,
            max_tunnel_age: None,
            drain_timeout: DRAIN_TIMEOUT,
            memory_budget: MEMORY_BUDGET,
            metrics_by_key: false,
            inject: None,
            when_key_is_full: WhenKeyIsFull::default(),
            key_of: None,
            admit: Vec::new(),
            on_open: Vec::new(),
            on_close: Vec::new(),
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("reverse", &self.reverse)
            .field("max_tunnels", &self.max_tunnels)
            .field("max_per_key", &self.max_per_key)
            .field("max_per_connection", &self.max_per_connection)
            .field("max_per_address", &self.max_per_address)
            .field("max_openings_at_once", &self.max_openings_at_once)
            .field("max_tunnel_age", &self.max_tunnel_age)
            .field("drain_timeout", &self.drain_timeout)
            .field("memory_budget", &self.memory_budget)
            .field("when_key_is_full", &self.when_key_is_full)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Calls the hook that gives a new tunnel its key.
    pub(crate) fn give_key(&self, opening: &mut Opening) {
        if let Some(key_of) = &self.key_of {
            let key = key_of(opening);
            opening.set_key(key);
        }
    }

    /// Calls the hooks that decide whether a tunnel may be opened.
    pub(crate) async fn admit(&self, opening: &Opening) -> Result<(), Refusal> {
        for admit in &self.admit {
            let admitted = admit(opening.clone()).await;
            admitted.map_err(|status| Refusal::new("not_admitted", status))?;
        }
        Ok(())
    }

    /// Asks the hook over how long this number of tunnels should spread their return.
    pub(crate) fn return_spread(&self, open: usize) -> Option<Duration> {
        let mut spread = None;
        if let Some(return_spread) = &self.return_spread {
            catch_panic("return_spread", || spread = Some(return_spread(open)));
        }
        spread
    }

    /// Calls the hooks for a tunnel that has opened.
    pub(crate) fn opened(&self, tunnel: &AcceptedTunnel) {
        for on_open in &self.on_open {
            catch_panic("on_open", || on_open(tunnel));
        }
    }

    /// Calls the hooks for a tunnel that is closed.
    pub(crate) fn closed(&self, info: &TunnelInfo, reason: &EndReason, stats: &Stats) {
        for on_close in &self.on_close {
            catch_panic("on_close", || on_close(info, reason, stats));
        }
    }
}

/// Runs a callback and catches its panic, which would interrupt the end of a tunnel.
fn catch_panic(name: &str, callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("{name} has panicked");
    }
}
