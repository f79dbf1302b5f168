//! The state that the binding keeps for each call.

use std::task::Waker;

use tunnel_core::{Code, StreamError};

/// The state that the binding keeps for one call, until its last holder (a future, a body, a task)
/// releases it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Handler: why the call ended, unless the handler closed it. Caller: the failure of its request
    /// body.
    pub(crate) failed: Option<Box<Failure>>,
    /// Handler: the call's handler has stopped, so no more of its request will be used.
    pub(crate) handler_done: bool,
    pub(crate) holders: u8,
    /// The last turn of [`Awake`] in which this call's task became ready.
    turn: u32,
}

impl Slot {
    /// The code that the call of a handler ended with, if the handler has not closed it.
    pub(crate) fn code(&self) -> Code {
        let failed = self.failed.as_deref();
        failed.map_or(Code::Cancelled, Failure::code)
    }
}

/// Counts the tasks that the driver woke in its last turn and that have not run yet. The writer
/// waits for them once.
#[derive(Debug, Default)]
pub(crate) struct Awake {
    turn: u32,
    pub(crate) count: usize,
}

impl Awake {
    /// A new turn of the driver: tasks woken before do not count any more.
    pub(crate) fn begin(&mut self) {
        self.turn = self.turn.wrapping_add(1).max(1);
        self.count = 0;
    }

    /// A call's task is woken.
    pub(crate) fn add(&mut self, slot: &mut Slot) {
        if std::mem::replace(&mut slot.turn, self.turn) != self.turn {
            self.count += 1;
        }
    }

    /// A call's task has run.
    pub(crate) fn remove(&mut self, slot: &mut Slot) {
        if std::mem::take(&mut slot.turn) == self.turn {
            self.count = self.count.saturating_sub(1);
        }
    }
}

/// How a call failed at this end.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The state machine has reported the failure.
    Stream(StreamError),
    /// The local request body has failed.
    Body(tonic::Status),
}

impl Failure {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Stream(error) => error.code,
            Self::Body(status) => crate::status::code_to_wire(status.code()),
        }
    }

    pub(crate) fn into_status(self) -> tonic::Status {
        match self {
            Self::Stream(error) => crate::status::from_stream_error(error),
            Self::Body(status) => status,
        }
    }
}
