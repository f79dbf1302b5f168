//! What the binding keeps for each call.

use std::task::Waker;

use tunnel_core::StreamError;

/// One call, as far as the binding keeps something for it. Stays until its last holder (a
/// future, a body, a task) lets go of it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Handler: why the call is over, if it ended otherwise than by its own close. Caller: the
    /// local failure of its request body.
    pub(crate) failed: Option<Box<Failure>>,
    /// Handler: nobody serves the call any more, so nothing comes that was not there yet.
    pub(crate) unserved: bool,
    pub(crate) holders: u8,
    /// The last turn of [`Awake`] in which this call's task became ready.
    turn: u32,
}

/// How many of the tasks that the driver has made ready are still at work. The transport's writer
/// waits for them once.
#[derive(Debug, Default)]
pub(crate) struct Awake {
    turn: u32,
    pub(crate) count: usize,
}

impl Awake {
    /// The driver reads: those who became ready before do not count any more.
    pub(crate) fn begin(&mut self) {
        self.turn = self.turn.wrapping_add(1).max(1);
        self.count = 0;
    }

    /// A call's task became ready.
    pub(crate) fn add(&mut self, slot: &mut Slot) {
        if std::mem::replace(&mut slot.turn, self.turn) != self.turn {
            self.count += 1;
        }
    }

    /// A call's task waits, or is done.
    pub(crate) fn remove(&mut self, slot: &mut Slot) {
        if std::mem::take(&mut slot.turn) == self.turn {
            self.count = self.count.saturating_sub(1);
        }
    }
}

/// How a call failed at this end.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The state machine says so.
    Stream(StreamError),
    /// The local request body says so.
    Body(tonic::Status),
}

impl Failure {
    pub(crate) fn into_status(self) -> tonic::Status {
        match self {
            Self::Stream(error) => crate::status::from_stream_error(error),
            Self::Body(status) => status,
        }
    }
}
