//! The two halves of a call for users, and the operations that they send to the task that drives
//! the tunnel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tunnel_core::{Metadata, OpenError, Status, StreamId, WriteError};

/// Sends operations to the task that drives the tunnel.
///
/// The channel is unbounded but stays short: an operation waits for its answer,
/// or is sent once for each call or tunnel.
pub(crate) type Ops = mpsc::UnboundedSender<Op>;

/// A call.
///
/// Its halves are independent of each other, so that one can send while it
/// receives. When both are dropped before the end of the call, the call is
/// cancelled at the far end.
#[derive(Debug)]
pub struct Call {
    /// Sends to the far end.
    pub tx: Sender,
    /// Receives from the far end.
    pub rx: Receiver,
}

impl Call {
    pub(crate) fn new(id: StreamId, ops: Ops) -> Self {
        let hold = Arc::new(Hold { id, ops });
        Self {
            tx: Sender(Arc::clone(&hold)),
            rx: Receiver(hold),
        }
    }
}

/// A call from the far end.
#[derive(Debug)]
pub struct IncomingCall {
    /// The method, with its leading slash.
    pub method: String,
    /// The request metadata.
    pub metadata: Metadata,
    /// The call itself.
    pub call: Call,
}

/// The sending half of a call.
///
/// A caller ends it with [`finish`](Self::finish), a handler with
/// [`close`](Self::close). Dropping this half does neither: data that an error cut
/// short must not look complete to the far end.
#[derive(Debug)]
pub struct Sender(Arc<Hold>);

impl Sender {
    /// Sends a message. Waits while the call's send buffer is full.
    ///
    /// # Errors
    ///
    /// [`CallError::Write`] when the call has ended; at a handler also when it was
    /// cancelled. At a caller, [`Receiver::receive`] returns how it ended.
    pub async fn send(&mut self, message: Bytes) -> Result<(), CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Send { id, message, reply }).await
    }

    /// Caller: ends the request (half-close).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn finish(self) -> Result<(), CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Finish { id, reply }).await
    }

    /// Handler: ends the call after the messages that were sent.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn close(self, status: Status) -> Result<(), CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Close { id, status, reply }).await
    }
}

/// The receiving half of a call.
#[derive(Debug)]
pub struct Receiver(Arc<Hold>);

impl Receiver {
    /// Waits for the next message; `None` when the far end has sent its last.
    ///
    /// Cancel-safe: no message is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`CallError::Status`] when the call ended with an error.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Receive { id, reply }).await
    }
}

/// Cancels a call when its last half is dropped.
#[derive(Debug)]
struct Hold {
    id: StreamId,
    ops: Ops,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.ops.send(Op::Abandon { id: self.id });
    }
}

/// Why an operation failed.
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
    /// The task that drives the tunnel ended with its runtime.
    #[error("nothing drives the tunnel any more")]
    Abandoned,
}

/// Receives the result of an operation.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// An operation of a user.
pub(crate) enum Op {
    Open(OpenRequest),
    Accept(oneshot::Sender<IncomingCall>),
    Send {
        id: StreamId,
        message: Bytes,
        reply: Reply<()>,
    },
    Receive {
        id: StreamId,
        reply: Reply<Option<Bytes>>,
    },
    Finish {
        id: StreamId,
        reply: Reply<()>,
    },
    Close {
        id: StreamId,
        status: Status,
        reply: Reply<()>,
    },
    Abandon {
        id: StreamId,
    },
    Drain {
        grace: Duration,
    },
    CloseTunnel,
}

/// A call that is to be opened.
pub(crate) struct OpenRequest {
    pub(crate) method: String,
    pub(crate) metadata: Metadata,
    pub(crate) reply: Reply<Call>,
}

/// Sends an operation to the task that drives the tunnel, and waits for the result.
pub(crate) async fn ask<T>(ops: &Ops, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, CallError> {
    let (reply, answer) = oneshot::channel();
    ops.send(op(reply)).map_err(|_| CallError::Abandoned)?;
    answer.await.unwrap_or(Err(CallError::Abandoned))
}
