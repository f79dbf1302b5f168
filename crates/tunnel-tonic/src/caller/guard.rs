//! A call in flight: what its future, its bodies and its task have in common.

use std::sync::Arc;

use tonic::Status;
use tunnel_core::StreamId;

use crate::message::{SplitError, Splitter};
use crate::shared::Shared;
use crate::slots::Failure;
use crate::state::State;

/// A call that exists in the tunnel. Dropping it before its end cancels it at the far end.
#[derive(Debug)]
pub(crate) struct CallGuard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: StreamId,
    /// Whether the end was read: nothing to cancel.
    pub(crate) ended: bool,
}

impl CallGuard {
    /// The end of a call that has gone before its end was read: a failure of its own request
    /// body, or nothing anybody knows of.
    pub(crate) fn gone(&self) -> Status {
        let failed = self
            .shared
            .with(|state| state.slot(self.id).and_then(|slot| slot.failed.take()));
        failed.map_or_else(
            || Status::unknown("the call has ended"),
            |failed| failed.into_status(),
        )
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let id = self.id;
        if self.ended {
            self.shared.release(id);
            return;
        }
        let _slot = self.shared.with(|state| {
            state.conn.cancel(id);
            state.release(id)
        });
    }
}

/// Ends a call because its request body failed. Returns how it had failed before, to be dropped
/// without the lock.
#[must_use = "to be dropped without the lock"]
pub(crate) fn fail_body(state: &mut State, id: StreamId, status: Status) -> Option<Box<Failure>> {
    state.conn.cancel(id);
    state.wake_reader(id);
    state
        .slot(id)?
        .failed
        .replace(Box::new(Failure::Body(status)))
}

/// Half-closes a call whose request body has ended.
pub(crate) fn finish(
    state: &mut State,
    id: StreamId,
    splitter: &Splitter,
) -> Result<(), SplitError> {
    if !splitter.is_whole() {
        return Err(SplitError::Malformed(Status::internal(
            "the request body ended inside a message",
        )));
    }
    Ok(state.conn.send_stream(id).finish()?)
}
