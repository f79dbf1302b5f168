//! A call in flight, shared by its future and its response body.

use std::sync::Arc;

use tonic::Status;
use tracing::Span;
use tunnel_core::{Code, StreamId};

use crate::message::{BodyError, BodyWriter};
use crate::shared::Shared;
use crate::slots::Failure;
use crate::state::State;
use crate::telemetry::CallTelemetry;

/// A call in flight. Dropping it before its end cancels it at the far end.
#[derive(Debug)]
pub(crate) struct CallGuard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: StreamId,
    /// Whether the end was read, so that the call need not be cancelled.
    ended: bool,
    telemetry: CallTelemetry,
}

impl CallGuard {
    /// A call that was opened, with its path, and its span if it has one already.
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId, path: &str, span: Option<Span>) -> Self {
        let telemetry = CallTelemetry::of_caller(&shared.telemetry, path, span);
        Self {
            shared,
            id,
            ended: false,
            telemetry,
        }
    }

    /// The end of the call was read.
    pub(crate) fn end(&mut self, code: Code) {
        self.ended = true;
        self.telemetry.finish(&self.shared.telemetry, code);
    }

    /// The status of a call that was released before its end was read: that of its request body, if the
    /// body failed.
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
        self.telemetry
            .finish(&self.shared.telemetry, Code::Cancelled);
    }
}

/// Ends a call because its request body failed. Returns the failure that was recorded before.
#[must_use = "must be dropped without the lock"]
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
    writer: &BodyWriter,
) -> Result<(), BodyError> {
    if !writer.is_whole() {
        return Err(BodyError::Malformed(Status::internal(
            "the request body ended inside a message",
        )));
    }
    Ok(state.conn.send_stream(id).finish()?)
}
