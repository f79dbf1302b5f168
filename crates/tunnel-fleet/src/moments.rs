//! What was lost a moment ago, and may be back in another moment: keys, and hops.
//!
//! A device that moves ends its tunnel at one gateway before the others have heard of its tunnel at the next one, and a
//! connection between gateways that breaks is made again. Calls wait for that, but not for long.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a call waits, and how long something counts as just lost.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);

/// How many names may be kept that were not lost just now.
const KEPT: usize = 1024;

/// The names of what was lost in the last [`MOMENT`].
#[derive(Debug, Default)]
pub(crate) struct Moments(Mutex<Lost>);

#[derive(Debug, Default)]
struct Lost {
    at: HashMap<String, Instant>,
    /// How many names there may be before the old ones are dropped.
    limit: usize,
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < MOMENT
}

impl Moments {
    fn lock(&self) -> MutexGuard<'_, Lost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a loss. Returns whether it is the first one in this moment.
    pub(crate) fn note(&self, name: &str) -> bool {
        let mut lost = self.lock();
        if lost.at.len() >= lost.limit {
            lost.at.retain(|_, at| is_recent(*at));
            lost.limit = lost.at.len() * 2 + KEPT;
        }
        if lost.at.get(name).copied().is_some_and(is_recent) {
            return false;
        }
        lost.at.insert(name.to_owned(), Instant::now());
        true
    }

    /// Whether something was lost a moment ago.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().at.get(name).copied().is_some_and(is_recent)
    }
}
