//! The place of a call: in the queue, or among the calls in flight.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use tunnel_core::OpenError;

use super::handle::Handle;
use super::head::CallHead;
use crate::shared::Shared;
use crate::state::State;
use crate::waiting::Turn;

/// The place of one call. Dropping it leaves the queue and gives a reserved place to the next call.
pub(super) struct Place {
    handle: Arc<Handle>,
    /// Whether the call waits at the stream limit. Otherwise it fails there.
    queue: bool,
    /// The call's ticket while it is in the queue.
    ticket: Option<u64>,
    /// The deadline of a call that has waited, if it has one.
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

    /// Whether the call may open now; otherwise it is in the queue. A call that may open must do so at
    /// once, because its place is no longer reserved. Subtracts the wait from the call's timeout.
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
