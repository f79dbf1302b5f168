//! Tunnels that are being opened: their keys, so that a key can be closed before its tunnel is listed, and
//! their number, which may have a limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tonic::Status;
use tunnel_tonic::AffinityKey;

use crate::admission::Admission;
use crate::policy::Refusal;

/// The tunnels that are being opened.
#[derive(Debug)]
pub(crate) struct Openings {
    state: Mutex<State>,
    limit: Option<Arc<Limit>>,
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
    place: Option<Place>,
}

/// The limit on openings at once.
#[derive(Debug)]
struct Limit {
    admission: Mutex<Admission>,
    since: Instant,
}

/// The place of an opening under the limit. Dropping it ends the opening.
#[derive(Debug)]
pub(crate) struct Place {
    limit: Arc<Limit>,
    id: u64,
}

impl Limit {
    fn lock(&self) -> MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.limit.since.elapsed();
        self.limit.lock().end(self.id, now);
    }
}

impl Openings {
    /// With a limit on openings at once.
    pub(crate) fn new(max: Option<usize>) -> Arc<Self> {
        let limit = max.map(|max| {
            Arc::new(Limit {
                admission: Mutex::new(Admission::new(max)),
                since: Instant::now(),
            })
        });
        let state = Mutex::default();
        Arc::new(Self { state, limit })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more opening; `None` without a limit.
    pub(crate) fn place(&self) -> Result<Option<Place>, Refusal> {
        let Some(limit) = &self.limit else {
            return Ok(None);
        };
        let begun = limit.lock().begin(limit.since.elapsed(), fastrand::f64());
        let id = begun.map_err(Refusal::too_many_openings)?;
        let limit = limit.clone();
        Ok(Some(Place { limit, id }))
    }

    /// Begins to admit a tunnel with a key, or with none.
    pub(crate) fn begin(
        self: &Arc<Self>,
        key: Option<&AffinityKey>,
        place: Option<Place>,
    ) -> Pending {
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
            place,
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
    /// The opening was admitted. Returns its place, which it keeps until its tunnel takes calls.
    pub(crate) fn admitted(&mut self) -> Option<Place> {
        let place = self.place.take()?;
        let now = place.limit.since.elapsed();
        place.limit.lock().admitted(place.id, now);
        Some(place)
    }

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
