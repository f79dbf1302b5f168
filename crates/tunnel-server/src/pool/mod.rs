//! Pools of the reverse tunnels that take calls, of one key or all, and channels over them.

mod channel;

use std::fmt;
use std::sync::Arc;

use tunnel_tonic::AffinityKey;
use tunnel_tonic::pool::Pool as Tunnels;

pub use channel::{ReverseChannel, ReverseResponseFuture};

/// Called with a pool's key when the pool is dropped.
pub(crate) type OnDrop = Box<dyn Fn(&AffinityKey) + Send + Sync>;

/// The tunnels of one key, or all.
pub(crate) struct Pool {
    pub(crate) tunnels: Tunnels,
    key: Option<(AffinityKey, OnDrop)>,
}

impl Pool {
    /// The pool of all tunnels.
    pub(crate) fn of_all() -> Arc<Self> {
        Arc::new(Self {
            tunnels: Tunnels::default(),
            key: None,
        })
    }

    /// The pool of a key.
    pub(crate) fn of_key(key: AffinityKey, on_drop: OnDrop) -> Arc<Self> {
        Arc::new(Self {
            tunnels: Tunnels::default(),
            key: Some((key, on_drop)),
        })
    }

    pub(crate) fn key(&self) -> Option<&AffinityKey> {
        self.key.as_ref().map(|(key, _)| key)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("key", &self.key())
            .field("tunnels", &self.tunnels)
            .finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some((key, on_drop)) = &self.key {
            on_drop(key);
        }
    }
}
