//! A call's place among the calls in flight, and in the queue for one.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use tunnel_core::OpenError;

use super::handle::Handle;
use super::head::CallHead;
use crate::shared::Shared;
use crate::state::State;
use crate::waiting::Turn;

/// One call's place. Dropping it leaves the queue, and passes its turn on.
pub(super) struct Place {
    handle: Arc<Handle>,
    /// Whether the call waits for room. If not it fails where there is none.
    queue: bool,
    /// The call's ticket while it is in the queue.
    ticket: Option<u64>,
    /// When a call that has waited expires, if it carries a deadline.
    deadline: Option<Instant>,
}

impl Place {
    pub(super) fn new(handle: Arc<Handle>, queue: bool) -> Self {
        Self {
            handle,
            queue,
            ticket: None,
            deadline: None,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Whether the call may open now. If it may, it must: its place is kept no longer. If not, it
    /// is in the queue. Takes the time of the wait off the timeout that travels with the call.
    pub(super) fn enter(
        &mut self,
        state: &mut State,
        head: &mut CallHead,
        now: Instant,
        cx: &Context<'_>,
    ) -> Result<bool, OpenError> {
        let Some(ticket) = self.ticket else {
            if !state.is_full() {
                return Ok(true);
            }
            if !self.queue {
                return Err(OpenError::StreamLimit(state.conn.active_streams()));
            }
            let timeout = head.timeout();
            self.deadline = timeout.and_then(|timeout| now.checked_add(timeout));
            self.ticket = Some(state.join_queue(cx.waker(), self.deadline));
            return Ok(false);
        };
        let turn = state.poll_queue(ticket, cx.waker(), self.deadline);
        if turn == Turn::Later {
            return Ok(false);
        }
        self.ticket = None;
        if turn == Turn::Expired {
            return Err(OpenError::DeadlineExceeded);
        }
        if let Some(deadline) = self.deadline {
            head.set_timeout(deadline.saturating_duration_since(now));
        }
        Ok(true)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared().with(|state| state.leave_queue(ticket));
        }
    }
}
