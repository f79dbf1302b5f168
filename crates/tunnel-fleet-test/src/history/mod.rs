//! The history of a row: what callers and devices have recorded, and what must be true of it.
//!
//! Pure functions. Times are since the start of the row.

mod calls;
mod owners;
mod served;

use std::time::Duration;

pub(crate) use calls::{Allowed, Fault, Judgement, judge};
pub(crate) use owners::staleness;
pub(crate) use served::Served;

/// Calls that take longer are remarkable.
const REMARKABLE: Duration = Duration::from_millis(500);

/// A call, as its caller has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Different for each call of the whole run.
    pub(crate) id: u64,
    /// The number of the device.
    pub(crate) key: usize,
    /// The number of the caller. A caller makes one call at a time.
    pub(crate) caller: usize,
    /// The gateway that was called. None: a balancer has chosen it.
    pub(crate) gateway: Option<usize>,
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    /// How long the device was asked to take.
    pub(crate) wait: Duration,
    /// The session of the device that has answered, or the error.
    pub(crate) outcome: Result<String, String>,
}

impl Call {
    fn has_failed(&self) -> bool {
        self.outcome.is_err()
    }

    /// Whether somebody who looks into a fault wants to see it: it has failed, or taken long.
    pub(crate) fn is_remarkable(&self) -> bool {
        let took = self.ended.saturating_sub(self.begun);
        self.has_failed() || took > self.wait + REMARKABLE
    }
}

#[cfg(test)]
pub(crate) fn call(id: u64, key: usize, begun: u64, ended: u64) -> Call {
    Call {
        id,
        key,
        caller: 0,
        gateway: Some(0),
        begun: Duration::from_millis(begun),
        ended: Duration::from_millis(ended),
        wait: Duration::ZERO,
        outcome: Ok("1".into()),
    }
}
