//! The reverse tunnels that take calls, of one key or all, and channels over them.

mod channel;

use std::ops::Deref;
use std::sync::{Arc, Weak};

use tunnel_tonic::AffinityKey;
use tunnel_tonic::pool::Pool as Tunnels;

use crate::registry::Registry;

pub use channel::{ReverseChannel, ReverseResponseFuture};

/// The tunnels of one key, or all.
#[derive(Debug)]
pub(crate) struct Pool {
    key: Option<AffinityKey>,
    tunnels: Tunnels,
    /// Who is told when the pool has gone.
    registry: Weak<Registry>,
}

impl Pool {
    pub(crate) fn new(key: Option<AffinityKey>, registry: Weak<Registry>) -> Arc<Self> {
        Arc::new(Self {
            key,
            tunnels: Tunnels::default(),
            registry,
        })
    }

    pub(crate) fn key(&self) -> Option<&AffinityKey> {
        self.key.as_ref()
    }
}

impl Deref for Pool {
    type Target = Tunnels;

    fn deref(&self) -> &Tunnels {
        &self.tunnels
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let (Some(key), Some(registry)) = (&self.key, self.registry.upgrade()) {
            registry.pool_gone(key);
        }
    }
}
