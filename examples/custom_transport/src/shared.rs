//! What the users of a tunnel and the task that drives it share: the state machine behind a lock.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::Notify;
use tunnel_core::{
    Code, Connection, EndReason, Event, Metadata, Read, Status, StreamId, Waiters, WriteError,
};

/// One end of a tunnel.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// A user has changed the state; the driver looks again.
    changed: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) conn: Connection,
    pub(crate) waiters: Waiters,
    /// Calls that were not accepted yet. No more than streams.
    arrived: VecDeque<Arrived>,
    /// Handler: how calls failed whose users still hold them.
    cancelled: HashMap<StreamId, Status>,
    /// Whether the last user has gone.
    pub(crate) unused: bool,
    /// Why the tunnel ended, once its socket is closed.
    pub(crate) closed: Option<EndReason>,
}

/// A call that was not accepted yet.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) id: StreamId,
    pub(crate) method: String,
    pub(crate) metadata: Metadata,
}

impl Shared {
    pub(crate) fn new(conn: Connection) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                conn,
                waiters: Waiters::new(),
                arrived: VecDeque::new(),
                cancelled: HashMap::new(),
                unused: false,
                closed: None,
            }),
            changed: Notify::new(),
        })
    }

    /// Works on the state, acts on the events of it, and wakes tasks after unlocking.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        state.settle();
        let ready = state.waiters.take_ready();
        drop(state);
        ready.into_iter().for_each(|waker| waker.wake());
        result
    }

    /// The same for a user: the driver looks at the state afterwards.
    pub(crate) fn operate<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = self.with(work);
        self.changed.notify_one();
        result
    }

    /// A user's operation that may have to wait.
    pub(crate) async fn wait<T>(
        &self,
        mut poll: impl FnMut(&mut State, &mut Context<'_>) -> Poll<T>,
    ) -> T {
        poll_fn(|cx| self.operate(|state| poll(state, cx))).await
    }

    /// Waits until a user has changed the state.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl State {
    fn settle(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            self.waiters.on_event(&event);
            match event {
                Event::Opened {
                    id,
                    method,
                    headers: metadata,
                    ..
                } => self.arrived.push_back(Arrived {
                    id,
                    method,
                    metadata,
                }),
                Event::Cancelled { id, error, .. } => {
                    if let Some(at) = self.arrived.iter().position(|call| call.id == id) {
                        self.arrived.remove(at);
                        // Nobody has seen it, so there is no handler to wait for.
                        self.conn.handler_done(id);
                    } else {
                        self.cancelled.insert(id, error.to_status());
                    }
                }
                _ => {}
            }
        }
    }

    /// Handler: the next call; `None` when the tunnel has ended.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrived>> {
        let arrived = self.arrived.pop_front();
        if arrived.is_some() || self.conn.end_reason().is_some() {
            return Poll::Ready(arrived);
        }
        self.waiters.wait_tunnel(cx.waker());
        Poll::Pending
    }

    /// The next message of a call; `None` when its sender has sent the last.
    pub(crate) fn poll_receive(
        &mut self,
        id: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Status>> {
        Poll::Ready(match self.conn.recv_stream(id).message() {
            Read::Data(message) => Ok(Some(message)),
            Read::Pending => {
                self.waiters.wait_readable(id, cx.waker());
                return Poll::Pending;
            }
            Read::HalfClosed => Ok(None),
            Read::Closed(close) if close.status.code == Code::Ok => Ok(None),
            Read::Closed(close) => Err(close.status),
            Read::Failed(error) => Err(error.to_status()),
            _ => {
                let over = || Status::new(Code::Unavailable, "the call is over");
                Err(self.cancelled.get(&id).cloned().unwrap_or_else(over))
            }
        })
    }

    /// Waits while a call has much to send already.
    pub(crate) fn poll_writable(
        &mut self,
        id: StreamId,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        match self.conn.send_stream(id).is_writable() {
            Ok(false) => {
                self.waiters.wait_writable(id, cx.waker());
                Poll::Pending
            }
            writable => Poll::Ready(writable.map(drop)),
        }
    }

    /// The user of a call has dropped it.
    pub(crate) fn forget(&mut self, id: StreamId) {
        self.waiters.forget(id);
        self.cancelled.remove(&id);
        self.conn.handler_done(id);
    }
}

/// Has the driver close the tunnel when it is dropped. Held by the tunnel and its calls.
#[derive(Debug)]
pub(crate) struct User(pub(crate) Arc<Shared>);

impl Drop for User {
    fn drop(&mut self) {
        self.0.operate(|state| state.unused = true);
    }
}
