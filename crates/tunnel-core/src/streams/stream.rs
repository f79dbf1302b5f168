//! One stream: its two halves, and its flags in the tunnel's queues.

use std::time::Instant;

use super::Revision;
use super::flow::{Credit, RecvWindow, Window};
use super::recv::RecvHalf;
use super::send::{Head, Opening, SendHalf};
use super::state::{RecvState, SendState};
use crate::Config;

/// One call.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: i64,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    pub(crate) deadline: Option<Instant>,
    /// Whether the counters already allow for its late frames.
    pub(super) late_allowed: bool,
    /// Whether the stream is in the schedule's control queue.
    pub(crate) in_control: bool,
    /// Whether the stream is in the schedule's data queue.
    pub(crate) in_data: bool,
    /// Whether the stream was noted as stalled: it has data to send and no credit for it.
    pub(crate) stalled: bool,
    /// Handler: whether the call was announced to the application.
    pub(super) announced: bool,
}

impl Stream {
    pub(crate) fn new(
        id: i64,
        revision: Revision,
        first_credit: Window,
        opening: Option<Box<Opening>>,
        message_cost: u8,
        carries_compressed: bool,
        config: &Config,
    ) -> Self {
        let (credit, window) = match revision {
            Revision::Zero => (Credit::Unlimited, None),
            Revision::One => (
                Credit::Limited(first_credit),
                Some(RecvWindow::new(config.v.initial_window)),
            ),
        };
        Self {
            id,
            send: SendHalf::new(credit, opening, message_cost),
            recv: RecvHalf::new(window, message_cost, carries_compressed),
            deadline: None,
            late_allowed: false,
            in_control: false,
            in_data: false,
            stalled: false,
            announced: true,
        }
    }

    /// Whether a frame other than data waits to be sent.
    pub(crate) fn has_control(&self) -> bool {
        self.send.opening.is_some()
            || matches!(self.send.head, Head::Pending(_))
            || (self.send.state == SendState::Finishing && !self.send.has_data())
            || self.update_is_due()
    }

    pub(crate) fn update_is_due(&self) -> bool {
        self.recv.state == RecvState::Open
            && self
                .recv
                .window
                .as_ref()
                .is_some_and(|w| w.is_due(self.recv.arriving()))
    }

    /// The memory that the stream holds, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.recv.unread() + self.recv.overhead() as usize + self.send.queued()
    }

    /// The largest message that is handed on from its first byte.
    pub(crate) fn large(&self, config: &Config) -> usize {
        match &self.recv.window {
            Some(w) => w.size() as usize,
            None => config.v.initial_window as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_costs_what_the_memory_formula_says() {
        // The rest of the 700 bytes is the entry in the table, the deadline and the entries in
        // queues.
        let size = std::mem::size_of::<Stream>();
        assert!(size <= 550, "{size}");
    }
}
