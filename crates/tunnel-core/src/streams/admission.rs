//! Handler: admission of calls.
//!
//! A cancelled call leaves the table at once, but its handler may still be running. It occupies a
//! place until the application reports that the handler has stopped. A peer that opens and cancels
//! calls therefore cannot make more handlers run than the stream limit allows. Calls without a
//! place wait here, in the order of their ids; their data, deadlines and cancels are still handled.

use std::collections::{BTreeMap, HashSet};

use super::hash::StreamIdHash;
use crate::event::Event;

/// The calls that wait to be announced, and the handlers that occupy their places.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// [`Event::Opened`] of each call that waits.
    waiting: BTreeMap<i64, Event>,
    /// Cancelled calls whose handlers have not been reported as stopped.
    cancelled: HashSet<i64, StreamIdHash>,
}

impl Admission {
    /// Whether a call may be announced while `streams` are in the table, its own not counted.
    fn has_place(&self, streams: usize, max: usize) -> bool {
        streams - self.waiting.len() + self.cancelled.len() < max
    }

    /// Takes the announcement of a new call: gives it back if it may be made at once. `streams` are
    /// in the table beside the call's own.
    pub(crate) fn enter(
        &mut self,
        id: i64,
        opened: Event,
        streams: usize,
        max: usize,
    ) -> Option<Event> {
        if self.waiting.is_empty() && self.has_place(streams, max) {
            return Some(opened);
        }
        self.waiting.insert(id, opened);
        None
    }

    /// The next announcement that may be made while `streams` are in the table.
    pub(crate) fn next(&mut self, streams: usize, max: usize) -> Option<(i64, Event)> {
        if self.waiting.is_empty() || !self.has_place(streams, max) {
            return None;
        }
        self.waiting.pop_first()
    }

    /// A call has left the table; whether it was still waiting.
    pub(crate) fn leave(&mut self, id: i64) -> bool {
        self.waiting.remove(&id).is_some()
    }

    /// A call was cancelled whose handler may still run.
    pub(crate) fn cancelled(&mut self, id: i64) {
        self.cancelled.insert(id);
    }

    /// The handler of a call has stopped.
    pub(crate) fn handler_done(&mut self, id: i64) {
        self.cancelled.remove(&id);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_waiting(&self, id: i64) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(crate) fn cancelled_handlers(&self) -> usize {
        self.cancelled.len()
    }

    /// Forgets all calls: the tunnel has ended. Returns those that waited.
    pub(crate) fn clear(&mut self) -> Vec<i64> {
        std::mem::take(self).waiting.into_keys().collect()
    }
}
