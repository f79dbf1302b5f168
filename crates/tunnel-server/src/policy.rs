//! Which tunnels a handler accepts, and its callbacks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;
use tunnel_core::{EndReason, Report};
use tunnel_tonic::{AffinityKey, TunnelInfo};

use crate::{Opening, TunnelHandle};

/// The default limit on tunnels of one connection. A device has one or a few; a proxy with many devices
/// on one connection has its own limit of streams (HAProxy: 100).
const MAX_PER_CONNECTION: usize = 1024;

/// The default limit on tunnels of one key or one address. All devices behind a load balancer or a NAT
/// share an address.
const MAX_PER_PEER: usize = 10_000;

/// The default memory budget of all tunnels, in bytes.
const MEMORY_BUDGET: usize = 1 << 30;

type KeyOf = dyn Fn(&Opening) -> Option<AffinityKey> + Send + Sync;
type Admit = dyn Fn(Opening) -> BoxFuture<'static, Result<(), Status>> + Send + Sync;
type OnOpen = dyn Fn(&TunnelHandle) + Send + Sync;
type OnClose = dyn Fn(&TunnelInfo, &EndReason) + Send + Sync;

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

/// The longest age, which timers can still express.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// The maximum age of tunnels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaxAge {
    pub(crate) age: Duration,
    /// How long calls in flight may go on after that.
    pub(crate) grace: Duration,
}

impl MaxAge {
    /// The age, more or less by up to a tenth, so that tunnels opened together do not end
    /// together.
    pub(crate) fn jittered(self) -> Duration {
        self.age.min(LONGEST).mul_f64(0.9 + 0.2 * fastrand::f64())
    }
}

/// The settings of a handler that concern tunnels rather than calls.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) reverse: bool,
    pub(crate) max_tunnels: usize,
    pub(crate) max_per_key: usize,
    pub(crate) max_per_connection: usize,
    pub(crate) max_per_address: usize,
    pub(crate) max_age: Option<MaxAge>,
    pub(crate) memory_budget: usize,
    pub(crate) when_key_is_full: WhenKeyIsFull,
    pub(crate) key_of: Option<Arc<KeyOf>>,
    pub(crate) admit: Option<Arc<Admit>>,
    pub(crate) on_open: Option<Arc<OnOpen>>,
    pub(crate) on_close: Option<Arc<OnClose>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reverse: true,
            max_tunnels: usize::MAX,
            max_per_key: MAX_PER_PEER,
            max_per_connection: MAX_PER_CONNECTION,
            max_per_address: MAX_PER_PEER,
            max_age: None,
            memory_budget: MEMORY_BUDGET,
            when_key_is_full: WhenKeyIsFull::default(),
            key_of: None,
            admit: None,
            on_open: None,
            on_close: None,
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
            .field("max_age", &self.max_age)
            .field("memory_budget", &self.memory_budget)
            .field("when_key_is_full", &self.when_key_is_full)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Gives an opening its key, and asks whether the tunnel may be opened.
    pub(crate) async fn consider(&self, opening: &mut Opening) -> Result<(), Status> {
        if let Some(key_of) = &self.key_of {
            let key = key_of(opening);
            opening.set_key(key);
        }
        match &self.admit {
            Some(admit) => admit(opening.clone()).await,
            None => Ok(()),
        }
    }

    /// Tells the callback of a tunnel that has opened.
    pub(crate) fn opened(&self, tunnel: &TunnelHandle) {
        tracing::debug!(tunnel = %tunnel.id(), "tunnel open");
        if let Some(on_open) = &self.on_open {
            unharmed("on_open", || on_open(tunnel));
        }
    }

    /// Tells the callback of a tunnel that has gone.
    pub(crate) fn closed(&self, info: &TunnelInfo, reason: &EndReason) {
        tracing::debug!(tunnel = ?info, reason = %Report(reason), "tunnel gone");
        if let Some(on_close) = &self.on_close {
            unharmed("on_close", || on_close(info, reason));
        }
    }
}

/// Runs a callback from where a panic would do harm: in the middle of a tunnel's end.
fn unharmed(name: &str, callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("{name} has panicked");
    }
}
