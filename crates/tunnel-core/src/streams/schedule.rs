//! The scheduler: the order of sent frames.
//!
//! Queues hold stream ids, not frames; frames are encoded when the transport requests them. Order:
//! settings, heartbeats, a notice, a drain notice, cancels, refusals; then control frames of streams (new
//! streams in the order of their ids, response headers, window updates, ends of streams without
//! data); then data, one chunk for each stream in turn.
//!
//! Invariants: a stream is at most once in `control` and once in `data`, as its flags show. Ids of
//! streams that have gone are skipped, and never make up more than half of a queue.

use std::collections::VecDeque;

use super::cancels::Cancels;
use crate::{Notice, Status};

/// The status text that refusals may have on average, in bytes. With more text the limit on
/// refusals is reached earlier. Refusals of this library have less.
const REFUSAL_TEXT: usize = 128;

/// A `close_stream` for a stream that is not in the table any more, or never was.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) id: i64,
    pub(crate) status: Status,
    /// Whether to mark it as never processed.
    pub(crate) not_processed: bool,
}

/// The queue of one class, with a count of ids whose streams have gone.
#[derive(Debug, Default)]
pub(crate) struct IdQueue {
    ids: VecDeque<i64>,
    gone: usize,
}

impl IdQueue {
    pub(crate) fn push(&mut self, id: i64) {
        self.ids.push_back(id);
    }

    pub(crate) fn push_front(&mut self, id: i64) {
        self.ids.push_front(id);
    }

    pub(crate) fn pop(&mut self) -> Option<i64> {
        self.ids.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.len() == self.gone
    }

    /// The number of ids of live streams in the queue.
    pub(crate) fn live(&self) -> usize {
        self.ids.len() - self.gone
    }

    /// The next ids, at most `n`. Some may be of gone streams.
    pub(crate) fn next(&self, n: usize) -> impl Iterator<Item = i64> {
        self.ids.iter().take(n).copied()
    }

    /// Notes that a stream in this queue has gone. `alive` returns whether an id's stream still
    /// exists.
    pub(crate) fn forget(&mut self, alive: impl Fn(i64) -> bool) {
        self.gone += 1;
        if self.gone * 2 > self.ids.len() {
            self.ids.retain(|&id| alive(id));
            self.gone = 0;
        }
    }

    /// Notes that an id whose stream has gone was popped.
    pub(crate) fn skipped(&mut self) {
        self.gone = self.gone.saturating_sub(1);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.ids.len()
    }
}

/// Refusals that wait to be sent, and the size of their statuses.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    queue: VecDeque<Refusal>,
    bytes: usize,
}

impl Refusals {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn push(&mut self, refusal: Refusal) {
        self.bytes += refusal.status.size();
        self.queue.push_back(refusal);
    }

    pub(crate) fn pop(&mut self) -> Option<Refusal> {
        let refusal = self.queue.pop_front()?;
        self.bytes -= refusal.status.size();
        Some(refusal)
    }

    /// Whether `count` refusals wait, or status text of `count` times [`REFUSAL_TEXT`].
    pub(crate) fn exceed(&self, count: usize) -> bool {
        self.queue.len() >= count || self.bytes >= count.saturating_mul(REFUSAL_TEXT)
    }
}

/// A heartbeat: a window update on stream -1. The numbers are the updates on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// No answer is needed.
    Plain = 0,
    /// The peer is to answer.
    Probe = 1,
    /// The answer to a probe.
    Echo = 2,
}

/// Everything that waits to be sent.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Handler: settings were not sent yet.
    pub(crate) settings: bool,
    /// A heartbeat is due.
    pub(crate) heartbeat: Option<Heartbeat>,
    /// A probe of the peer is to be answered.
    pub(crate) echo: bool,
    /// A notice to send.
    pub(crate) notice: Option<Box<Notice>>,
    /// Handler: the last stream served, for the drain notice.
    pub(crate) going_away: Option<i64>,
    pub(crate) cancels: Cancels,
    /// Handler: refusals to send. Above `max_pending_refusals` the peer is not read.
    pub(crate) refusals: Refusals,
    pub(crate) control: IdQueue,
    pub(crate) data: IdQueue,
}

impl Schedule {
    /// Whether there is nothing to send. Data that waits for credit does not count.
    pub(crate) fn is_empty(&self) -> bool {
        !self.settings
            && self.notice.is_none()
            && self.going_away.is_none()
            && self.heartbeat.is_none()
            && !self.echo
            && self.cancels.ready() == 0
            && self.refusals.is_empty()
            && self.control.is_empty()
            && self.data.is_empty()
    }

    /// Estimates the size of the frames that carry no messages, in bytes.
    pub(crate) fn control_bytes(&self) -> usize {
        /// A call's beginning or end with a little metadata.
        const CONTROL_FRAME: usize = 96;
        let frames = self.cancels.ready() + self.refusals.len() + self.control.live();
        frames * CONTROL_FRAME
    }

    pub(crate) fn clear(&mut self) {
        self.cancels.clear();
        let cancels = std::mem::take(&mut self.cancels);
        *self = Self {
            cancels,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_gone_streams_never_make_up_more_than_half_of_a_queue() {
        let mut q = IdQueue::default();
        for id in 0..1000 {
            q.push(id);
        }
        let mut gone = Vec::new();
        for id in 0..990 {
            gone.push(id);
            q.forget(|i| !gone.contains(&i));
            assert!(q.len() <= 2 * (1000 - gone.len()));
        }
        let mut left = Vec::new();
        while let Some(id) = q.pop() {
            if gone.contains(&id) {
                q.skipped();
            } else {
                left.push(id);
            }
        }
        assert_eq!(left, (990..1000).collect::<Vec<_>>());
        assert!(q.is_empty());
    }
}
