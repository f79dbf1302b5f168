//! The two halves of a call, as a user holds them, and what they ask of the task that drives the
//! tunnel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tunnel_core::{Metadata, OpenError, Status, StreamId, WriteError};

/// Sends operations to the task that drives the tunnel.
///
/// The channel is unbounded, but never long: an operation waits for its answer,
/// or is sent once for each call or tunnel.
pub(crate) type Ops = mpsc::UnboundedSender<Op>;

/// A call.
///
/// Its halves are independent of each other, so that one can send while it
/// receives. When both were dropped and the call is not over, it is given up and
/// the far end is told.
#[derive(Debug)]
pub struct Call {
    /// What goes to the far end.
    pub tx: Sender,
    /// What comes from it.
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

/// A call that has come.
#[derive(Debug)]
pub struct IncomingCall {
    /// The method, with its leading slash.
    pub method: String,
    /// What the caller sent along.
    pub metadata: Metadata,
    /// The call itself.
    pub call: Call,
}

/// The sending half of a call.
///
/// A caller that has sent all says so by [`finish`](Self::finish), a handler that
/// is done by [`close`](Self::close). Dropping this half says nothing: what was
/// cut short by an error must not look whole to the far end.
#[derive(Debug)]
pub struct Sender(Arc<Hold>);

impl Sender {
    /// Sends a message. Waits while the call has much to send already.
    ///
    /// # Errors
    ///
    /// [`CallError::Write`] when the call is over, at the handler also because it
    /// was cancelled. At the caller, [`Receiver::receive`] knows how it ended.
    pub async fn send(&mut self, message: Bytes) -> Result<(), CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Send { id, message, reply }).await
    }

    /// Caller: says that no more messages will come.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn finish(self) -> Result<(), CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Finish { id, reply }).await
    }

    /// Handler: ends the call, behind the messages that were sent.
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
    /// Nothing is lost if this is given up and asked again.
    ///
    /// # Errors
    ///
    /// [`CallError::Status`]: how the call ended, if not well.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, CallError> {
        let id = self.0.id;
        ask(&self.0.ops, |reply| Op::Receive { id, reply }).await
    }
}

/// Gives a call up when its last half is dropped.
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

/// Why something could not be done.
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
    /// The task that drives the tunnel is gone, and the runtime with it.
    #[error("nothing drives the tunnel any more")]
    Abandoned,
}

/// Where the answer to an operation goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// What a user wants of the tunnel.
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

/// Asks the task that drives the tunnel, and waits for its answer.
pub(crate) async fn ask<T>(ops: &Ops, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, CallError> {
    let (reply, answer) = oneshot::channel();
    ops.send(op(reply)).map_err(|_| CallError::Abandoned)?;
    answer.await.unwrap_or(Err(CallError::Abandoned))
}
