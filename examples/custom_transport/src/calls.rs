//! Who waits for what.
//!
//! The state machine tells of changes, not of whom they are for. Here stand those
//! who asked for something that was not there yet: a call to be opened or
//! accepted, a message to be read, room for one to be written. An event answers
//! whoever it concerns.
//!
//! Nothing here grows without an owner: an entry of a call lives as long as the
//! call's halves do, and one that nobody has accepted goes with its stream.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tunnel_core::{
    Code, Connection, Event, Metadata, Read, Side, Status, StreamError, StreamId, WriteError,
};

use crate::call::{Call, CallError, IncomingCall, Op, OpenRequest, Reply};

/// Everybody who waits on one tunnel.
pub(crate) struct Calls {
    /// For making the handles of calls. Weak, so that the tunnel notices when
    /// nobody holds one any more.
    ops: mpsc::WeakUnboundedSender<Op>,
    /// Those who asked for a call before the tunnel was ready.
    openers: Vec<OpenRequest>,
    /// Calls that came and were not accepted yet; no more than streams.
    arrived: VecDeque<Arrived>,
    acceptors: VecDeque<oneshot::Sender<IncomingCall>>,
    calls: HashMap<StreamId, Waiting>,
}

struct Arrived {
    id: StreamId,
    method: String,
    metadata: Metadata,
}

/// Who waits on one call, and what they will want to know.
#[derive(Default)]
struct Waiting {
    reader: Option<Reply<Option<Bytes>>>,
    /// A message of which not all has arrived.
    partial: BytesMut,
    /// A message whose reader went away while it was handed over.
    unclaimed: Option<Bytes>,
    writer: Option<(Bytes, Reply<()>)>,
    /// How the call ended, once that was read.
    end: Option<Result<(), Status>>,
    /// Handler: it has said how the call ends.
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

    /// The state machine says that something has happened.
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
                // Nothing will come any more: their channels close.
                self.acceptors.clear();
            }
            // Going away: whoever opens the next call is told by the error.
            _ => {}
        }
    }

    /// A user wants something.
    pub(crate) fn on_op(&mut self, op: Op, conn: &mut Connection, now: Instant) {
        match op {
            Op::Open(request) if conn.is_ready() || conn.end_reason().is_some() => {
                self.open(request, conn, now);
            }
            Op::Open(request) => self.openers.push(request),
            // Dropped, and so answered: nothing will come any more.
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
        // Without a sender there is nobody left to make calls.
        let Some(ops) = self.ops.upgrade() else {
            return;
        };
        let opened = conn.open(now, &method, metadata).map(|id| {
            self.calls.insert(id, Waiting::default());
            Call::new(id, ops)
        });
        // One who has gone drops the call here, which cancels it.
        let _ = reply.send(opened.map_err(CallError::from));
    }

    /// Brings together calls that came and those who wait for one.
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
            // One who has gone drops the call here, which refuses it.
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
            // Nobody has seen it: there is no handler to wait for.
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
            // Given up before it was sent.
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

    /// Both halves of a call were dropped. If the call is not over, it is now.
    fn abandon(&mut self, id: StreamId, conn: &mut Connection) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        match conn.side() {
            Side::Caller => conn.cancel(id),
            // What it said last is still on its way.
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
    /// The next whole message, or `Ok(None)` at the end in order; `None` if there
    /// is nothing to tell yet.
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
                // In one piece: nothing is copied.
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

/// Answers one who asked; one who has gone is not missed.
fn answer(reply: Reply<()>, result: Result<(), WriteError>) {
    let _ = reply.send(result.map_err(CallError::from));
}
