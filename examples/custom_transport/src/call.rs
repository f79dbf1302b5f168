//! The two halves of a call for users.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::ready;

use bytes::Bytes;
use tunnel_core::{Code, Metadata, OpenError, Side, Status, StreamId, WriteError};

use crate::shared::{Shared, User};

/// A call.
///
/// Its halves are independent, so that one can send while the other receives. When both are
/// dropped before the end of the call, a caller cancels it, and a handler fails it.
#[derive(Debug)]
pub struct Call {
    /// Sends to the far end.
    pub tx: Sender,
    /// Receives from the far end.
    pub rx: Receiver,
}

impl Call {
    pub(crate) fn new(id: StreamId, user: &Arc<User>) -> Self {
        let hold = Arc::new(Hold {
            id,
            user: user.clone(),
            closed: AtomicBool::new(false),
        });
        Self {
            tx: Sender(hold.clone()),
            rx: Receiver { hold, end: None },
        }
    }
}

/// A call from the far end.
#[derive(Debug)]
pub struct IncomingCall {
    /// The method, with its leading slash.
    pub method: String,
    /// The request headers.
    pub metadata: Metadata,
    /// The call itself.
    pub call: Call,
}

/// The sending half of a call.
///
/// A caller ends it by [`finish`](Self::finish), a handler by [`close`](Self::close). Dropping it
/// ends nothing: messages cut short by an error must not look whole to the far end.
#[derive(Debug)]
pub struct Sender(Arc<Hold>);

impl Sender {
    /// Sends a message. Waits while the call's send buffer is full.
    ///
    /// # Errors
    ///
    /// [`CallError::Write`] when the call is over, at the handler also because it was cancelled. At
    /// the caller, [`Receiver::receive`] returns how it ended.
    pub async fn send(&mut self, mut message: Bytes) -> Result<(), CallError> {
        let id = self.0.id;
        let sending = self.0.shared().wait(|state, cx| {
            ready!(state.poll_writable(id, cx))?;
            let message = std::mem::take(&mut message);
            state.conn.send_stream(id).message(message).into()
        });
        Ok(sending.await?)
    }

    /// Caller: no more messages will come.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn finish(self) -> Result<(), CallError> {
        let id = self.0.id;
        let shared = self.0.shared();
        Ok(shared.operate(|state| state.conn.send_stream(id).finish())?)
    }

    /// Handler: ends the call after the messages that were sent.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn close(self, status: Status) -> Result<(), CallError> {
        let id = self.0.id;
        let shared = self.0.shared();
        shared.operate(|state| state.conn.send_stream(id).close(Metadata::new(), status))?;
        self.0.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The receiving half of a call.
#[derive(Debug)]
pub struct Receiver {
    hold: Arc<Hold>,
    /// How the call ended, once that was read.
    end: Option<Result<(), Status>>,
}

impl Receiver {
    /// Waits for the next message; `None` when the far end has sent its last. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`CallError::Status`]: how the call ended, unless with OK.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, CallError> {
        let id = self.hold.id;
        if self.end.is_none() {
            let shared = self.hold.shared();
            match shared.wait(|state, cx| state.poll_receive(id, cx)).await {
                Ok(Some(message)) => return Ok(Some(message)),
                end => self.end = Some(end.map(drop)),
            }
        }
        match &self.end {
            Some(Err(status)) => Err(CallError::Status(status.clone())),
            _ => Ok(None),
        }
    }
}

/// Cancels a call when its last half is dropped.
#[derive(Debug)]
struct Hold {
    id: StreamId,
    user: Arc<User>,
    /// Handler: the end of the call is queued.
    closed: AtomicBool,
}

impl Hold {
    fn shared(&self) -> &Shared {
        &self.user.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let closed = *self.closed.get_mut();
        self.shared().operate(|state| {
            match state.conn.side() {
                Side::Caller => state.conn.cancel(self.id),
                Side::Handler if closed => {}
                Side::Handler => {
                    let status = Status::new(Code::Internal, "the call was dropped by its handler");
                    state.conn.reset(self.id, status);
                }
            }
            state.forget(self.id);
        });
    }
}

/// Why an operation on a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The call has ended with this status.
    #[error("{}: {}", .0.code, .0.message)]
    Status(Status),
    /// The call could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The message could not be sent.
    #[error(transparent)]
    Write(#[from] WriteError),
}
