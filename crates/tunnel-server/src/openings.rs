//! Tunnels that are being admitted: their keys, so that a key can be closed before its tunnel is listed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;
use tunnel_tonic::AffinityKey;

use crate::policy::Refusal;

/// The tunnels that are being admitted.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    pending: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    key: AffinityKey,
    /// Set when the key was closed.
    closed: Option<Status>,
}

/// A tunnel that is being admitted, until it is listed or refused.
#[derive(Debug)]
pub(crate) struct Pending {
    openings: Arc<Openings>,
    /// `None` without a key.
    id: Option<u64>,
}

impl Openings {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to admit a tunnel with a key, or with none.
    pub(crate) fn begin(self: &Arc<Self>, key: Option<&AffinityKey>) -> Pending {
        let id = key.map(|key| {
            let mut state = self.lock();
            state.last += 1;
            let id = state.last;
            let key = key.clone();
            state.pending.insert(id, Entry { key, closed: None });
            id
        });
        Pending {
            openings: self.clone(),
            id,
        }
    }

    /// Refuses the tunnels of a key that are being admitted. Returns their number.
    pub(crate) fn close(&self, key: &AffinityKey, status: &Status) -> usize {
        let mut state = self.lock();
        let of_key = state.pending.values_mut().filter(|entry| entry.key == *key);
        of_key
            .map(|entry| entry.closed.get_or_insert_with(|| status.clone()))
            .count()
    }
}

impl Pending {
    /// Fails if the key was closed meanwhile. To be called when the tunnel is listed: whoever closes the key
    /// later finds the tunnel.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let state = self.openings.lock();
        let entry = self.id.and_then(|id| state.pending.get(&id));
        match entry.and_then(|entry| entry.closed.clone()) {
            Some(status) => Err(Refusal::new("key_closed", status)),
            None => Ok(()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.openings.lock().pending.remove(&id);
        }
    }
}
