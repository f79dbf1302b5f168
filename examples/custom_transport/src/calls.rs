//! Pending operations of users.
//!
//! The state machine reports changes, and this module finds the operations that
//! wait for them: to open or accept a call, to read a message, or for room to write
//! one. An event completes these operations.
//!
//! The entry of a call is removed with the call's halves. A call that was not
//! accepted is removed with its stream.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tunnel_core::{
    Code, Connection, Event, Metadata, Read, Side, Status, StreamError, StreamId, WriteError,
};

use crate::call::{Call, CallError, IncomingCall, Op, OpenRequest, Reply};

/// The pending operations of one tunnel.
pub(crate) struct Calls {
    /// For the handles of new calls. Weak, so that the tunnel ends when its user has
    /// dropped all handles.
    ops: mpsc::WeakUnboundedSender<Op>,
    /// Calls to open when the tunnel is ready.
    openers: Vec<OpenRequest>,
    /// Calls that were not accepted yet. No more than the limit of streams.
    arrived: VecDeque<Arrived>,
    acceptors: VecDeque<oneshot::Sender<IncomingCall>>,
    calls: HashMap<StreamId, Waiting>,
}

struct Arrived {
    id: StreamId,
    method: String,
    metadata: Metadata,
}

/// The pending operations of one call, and its state.
#[derive(Default)]
struct Waiting {
    reader: Option<Reply<Option<Bytes>>>,
    /// The part of a message that has arrived.
    partial: BytesMut,
    /// A message whose reader was dropped during delivery.
    unclaimed: Option<Bytes>,
    writer: Option<(Bytes, Reply<()>)>,
    /// How the call ended, once that was read.
    end: Option<Result<(), Status>>,
    /// Handler: it has closed the call.
    closed: bool,
}

impl Calls {
    pub(crate) fn new(ops: mpsc::WeakUnboundedSender<Op>) -> Self {
        Self {
            ops,
            openers: Vec::new(),
            arrived: VecDeque::new(),
            acceptors: VecDeque::new(),
            calls: HashMap::new(),
        }
    }

    /// Handles an event of the state machine.
    pub(crate) fn on_event(&mut self, event: Event, conn: &mut Connection, now: Instant) {
        match event {
            Event::Ready => self.open_all(conn, now),
            Event::Opened {
                id,
                method,
                headers: metadata,
                ..
            } => {
                self.arrived.push_back(Arrived {
                    id,
                    method,
                    metadata,
                });
                self.hand_out_arrived();
            }
            Event::Readable(id) => self.read(id, conn),
            Event::Writable(id) => self.write(id, conn),
            Event::Cancelled { id, error } => self.on_cancelled(id, &error, conn),
            Event::Ended(_) => {
                self.open_all(conn, now);
                // Closes the channels of those who wait.
                self.acceptors.clear();
            }
            // Going away: the next `open` returns an error.
            _ => {}
        }
    }

    /// Performs an operation of a user.
    pub(crate) fn on_op(&mut self, op: Op, conn: &mut Connection, now: Instant) {
        match op {
            Op::Open(request) if conn.is_ready() || conn.end_reason().is_some() => {
                self.open(request, conn, now);
            }
            Op::Open(request) => self.openers.push(request),
            // Dropping it answers it: no calls will come any more.
            Op::Accept(_) if conn.end_reason().is_some() => {}
            Op::Accept(acceptor) => {
                self.acceptors.push_back(acceptor);
                self.hand_out_arrived();
            }
            Op::Send { id, message, reply } => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.writer = Some((message, reply));
                }
                self.write(id, conn);
            }
            Op::Receive { id, reply } => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.reader = Some(reply);
                }
                self.read(id, conn);
            }
            Op::Finish { id, reply } => answer(reply, conn.send(id).finish()),
            Op::Close { id, status, reply } => self.close(id, status, reply, conn),
            Op::Abandon { id } => self.abandon(id, conn),
            Op::Drain { grace } => conn.drain(now, now.checked_add(grace)),
            Op::CloseTunnel => conn.close(),
        }
    }

    fn open_all(&mut self, conn: &mut Connection, now: Instant) {
        for request in std::mem::take(&mut self.openers) {
            self.open(request, conn, now);
        }
    }

    fn open(&mut self, request: OpenRequest, conn: &mut Connection, now: Instant) {
        let OpenRequest {
            method,
            metadata,
            reply,
        } = request;
        // Without a sender all handles were dropped.
        let Some(ops) = self.ops.upgrade() else {
            return;
        };
        let opened = conn.open(now, &method, metadata).map(|id| {
            self.calls.insert(id, Waiting::default());
            Call::new(id, ops)
        });
        // If the user has gone, the call is dropped here, which cancels it.
        let _ = reply.send(opened.map_err(CallError::from));
    }

    /// Gives calls that came to users that wait for one.
    fn hand_out_arrived(&mut self) {
        while !self.arrived.is_empty()
            && let Some(acceptor) = self.acceptors.pop_front()
        {
            if acceptor.is_closed() {
                continue;
            }
            let (Some(ops), Some(arrived)) = (self.ops.upgrade(), self.arrived.pop_front()) else {
                return;
            };
            let Arrived {
                id,
                method,
                metadata,
            } = arrived;
            self.calls.insert(id, Waiting::default());
            let call = Call::new(id, ops);
            // If the user has gone, the call is dropped here, which refuses it.
            let _ = acceptor.send(IncomingCall {
                method,
                metadata,
                call,
            });
        }
    }

    fn on_cancelled(&mut self, id: StreamId, error: &StreamError, conn: &mut Connection) {
        let arrived = self.arrived.len();
        self.arrived.retain(|call| call.id != id);
        if self.arrived.len() < arrived {
            // It was not accepted, so it has no handler to wait for.
            conn.handler_done(id);
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.end = Some(Err(error.to_status()));
            call.partial.clear();
            self.read(id, conn);
            self.write(id, conn);
        }
    }

    fn read(&mut self, id: StreamId, conn: &mut Connection) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let Some(reader) = call.reader.take_if(|reader| !reader.is_closed()) else {
            return;
        };
        match call.next_message(id, conn) {
            None => call.reader = Some(reader),
            Some(outcome) => {
                if let Err(Ok(unclaimed)) = reader.send(outcome.map_err(CallError::Status)) {
                    call.unclaimed = unclaimed;
                }
            }
        }
    }

    fn write(&mut self, id: StreamId, conn: &mut Connection) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let Some((message, reply)) = call.writer.take() else {
            return;
        };
        if reply.is_closed() {
            // The user dropped the call before it was sent.
            return;
        }
        match conn.send(id).is_writable() {
            Ok(true) => answer(reply, conn.send(id).message(message)),
            Ok(false) => call.writer = Some((message, reply)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn close(&mut self, id: StreamId, status: Status, reply: Reply<()>, conn: &mut Connection) {
        let closed = conn.send(id).close(Metadata::new(), status);
        if let Some(call) = self.calls.get_mut(&id) {
            call.closed |= closed.is_ok();
        }
        answer(reply, closed);
    }

    /// Both halves of a call were dropped: ends the call if it has not ended.
    fn abandon(&mut self, id: StreamId, conn: &mut Connection) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        match conn.side() {
            Side::Caller => conn.cancel(id),
            // Its close is still queued.
            Side::Handler if call.closed => {}
            Side::Handler => {
                let status = Status::new(Code::Internal, "the call was dropped by its handler");
                conn.reset(id, status);
                conn.handler_done(id);
            }
        }
    }
}

impl Waiting {
    /// The next whole message, or `Ok(None)` at a clean end. `None` if neither is
    /// there yet.
    fn next_message(
        &mut self,
        id: StreamId,
        conn: &mut Connection,
    ) -> Option<Result<Option<Bytes>, Status>> {
        if let Some(message) = self.unclaimed.take() {
            return Some(Ok(Some(message)));
        }
        while self.end.is_none() {
            match conn.recv(id).read() {
                // The whole message in one piece needs no copy.
                Read::Data(chunk) if chunk.begins.is_some() && chunk.ends => {
                    return Some(Ok(Some(chunk.data)));
                }
                Read::Data(chunk) => {
                    self.partial.extend_from_slice(&chunk.data);
                    if chunk.ends {
                        return Some(Ok(Some(self.partial.split().freeze())));
                    }
                }
                Read::Pending => return None,
                Read::HalfClosed => self.end = Some(Ok(())),
                Read::Closed(close) if close.status.code == Code::Ok => self.end = Some(Ok(())),
                Read::Closed(close) => self.end = Some(Err(close.status)),
                Read::Failed(error) => self.end = Some(Err(error.to_status())),
                _ => {
                    let status = Status::new(Code::Unavailable, "the call is over");
                    self.end = Some(Err(status));
                }
            }
        }
        self.end.clone().map(|end| end.map(|()| None))
    }
}

/// Sends a result. The receiver may have been dropped.
fn answer(reply: Reply<()>, result: Result<(), WriteError>) {
    let _ = reply.send(result.map_err(CallError::from));
}
