//! The state behind a tunnel's lock: the state machine, and the wakers of tasks that wait for it.
//!
//! Nothing here runs user code. Work that must follow an operation, such as waking a task or
//! writing a log line, is collected in [`Actions`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::task::Waker;
use std::time::Instant;

use smallvec::SmallVec;
use tracing::Span;
use tunnel_core::{
    Connection, ConnectionError, Event, Metadata, Note, Notice, Offer, RecvStream, Released,
    StreamError, StreamId, StreamIdHash, TransportCause,
};

use crate::info::NetworkRole;
use crate::lifecycle::Lifecycle;
use crate::slots::{Awake, Failure, Slot};
use crate::waiting::{Turn, WaitQueue};

/// A new call, for the driver to serve.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: StreamId,
    pub(crate) method: String,
    pub(crate) headers: Metadata,
    pub(crate) has_deadline: bool,
}

/// The state behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) conn: Connection,
    slots: HashMap<StreamId, Slot, StreamIdHash>,
    /// Whether the peer takes text values that are not UTF-8.
    takes_opaque_text: bool,
    /// Whether both ends carry compressed messages.
    carries_compressed: bool,
    /// Caller: calls that wait at the stream limit.
    queue: WaitQueue,
    /// New calls, for the driver to serve.
    pub(crate) opened: Vec<Opened>,
    /// Whether the driver holds the lock, so that it takes new calls without being woken.
    pub(crate) reading: bool,
    pub(crate) awake: Awake,
    outbound: Option<Waker>,
    /// The number of bytes handed to the transport.
    pub(crate) bytes_taken: u64,
    /// Whether waking the writer is deferred.
    pub(crate) corked: bool,
    /// Network client: the transport dropped what this end sends. The driver learns the reason from
    /// what it receives.
    outbound_lost: bool,
    driver: Option<Waker>,
    /// The timer that the driver has set, and whether it does not read.
    driver_timeout: Option<Instant>,
    driver_paused: bool,
    /// Whether [`Lifecycle::Draining`] was announced.
    told_draining: bool,
    /// Network client: what the peer has told about tunnels to come.
    told: Option<Box<Notice>>,
    /// Log lines to write after unlocking.
    notes: Vec<LogNote>,
    /// Wakers that were replaced, to be dropped after unlocking.
    replaced: Wakers,
    /// Tasks to wake after unlocking.
    pending_wakes: Wakers,
}

/// A log line, written after unlocking because a subscriber is user code.
#[derive(Debug)]
pub(crate) enum LogNote {
    Core(Note),
    /// The number of metadata values left out for a peer that accepts only UTF-8.
    NotUtf8(usize),
}

impl LogNote {
    pub(crate) fn log(&self, tunnel: &Span) {
        match self {
            Self::Core(note) => tracing::debug!(parent: tunnel, "{note}"),
            Self::NotUtf8(values) => {
                tracing::debug!(parent: tunnel, values, "metadata values that are not UTF-8 are not sent");
            }
        }
    }
}

/// Most operations wake one task or none; only those of the driver wake more.
type Wakers = SmallVec<[Waker; 2]>;

/// The actions to perform after unlocking.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub(crate) wake: Wakers,
    pub(crate) wake_outbound: Option<Waker>,
    pub(crate) wake_driver: Option<Waker>,
    replaced: Wakers,
    pub(crate) notes: Vec<LogNote>,
    /// Buffers of the application, to be dropped after unlocking.
    released: Released,
    pub(crate) lifecycle: Option<Lifecycle>,
    /// Whether the tunnels of a budget hold more than it allows.
    pub(crate) over_budget: bool,
}

impl State {
    pub(crate) fn new(conn: Connection, role: NetworkRole) -> Self {
        Self {
            conn,
            slots: HashMap::default(),
            takes_opaque_text: false,
            carries_compressed: false,
            queue: WaitQueue::default(),
            opened: Vec::new(),
            reading: false,
            awake: Awake::default(),
            outbound: None,
            bytes_taken: 0,
            corked: false,
            outbound_lost: false,
            driver: None,
            driver_timeout: None,
            driver_paused: false,
            told_draining: false,
            told: (role == NetworkRole::Client).then(Box::default),
            notes: Vec::new(),
            replaced: Wakers::new(),
            pending_wakes: Wakers::new(),
        }
    }

    /// What the peer has told about tunnels to come.
    pub(crate) fn told(&self) -> Notice {
        self.told.as_deref().cloned().unwrap_or_default()
    }

    /// The number of calls with a [`Slot`].
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Acts on the state machine's events, and collects what to do after unlocking.
    pub(crate) fn settle(&mut self, actions: &mut Actions) {
        while let Some(event) = self.conn.poll_event() {
            self.on_event(event, actions);
        }
        if self.queue.is_waiting() {
            self.give_turns();
        }
        if self.conn.wants_time() {
            self.conn.set_time(crate::shared::now());
        }
        if !self.pending_wakes.is_empty() {
            actions.wake = std::mem::take(&mut self.pending_wakes);
        }
        if !self.replaced.is_empty() {
            actions.replaced = std::mem::take(&mut self.replaced);
        }
        if !self.notes.is_empty() {
            actions.notes = std::mem::take(&mut self.notes);
        }
        if self.conn.has_released() {
            actions.released = self.conn.take_released();
        }
        if self.conn.is_draining() && !self.told_draining && self.conn.is_ready() {
            self.told_draining = true;
            actions.lifecycle = Some(Lifecycle::Draining);
        }
        if self.outbound.is_some()
            && !self.corked
            && (self.conn.wants_transmit() || self.conn.end_reason().is_some())
        {
            actions.wake_outbound = self.outbound.take();
        }
        if self.driver.is_some() && self.driver_is_needed() {
            actions.wake_driver = self.driver.take();
        }
    }

    /// Starts the state machine, once the outer call is open.
    pub(crate) fn start(&mut self, now: Instant, peer: Offer) {
        self.takes_opaque_text = peer.opaque_text;
        self.carries_compressed = peer.compressed_messages;
        self.conn.start(now, peer);
    }

    /// Metadata in the form that the peer accepts.
    pub(crate) fn for_peer(&mut self, mut md: Metadata) -> Metadata {
        if !self.carries_compressed {
            md = crate::headers::without_encodings(md);
        }
        if self.takes_opaque_text {
            return md;
        }
        let (md, dropped) = crate::headers::without_opaque(md);
        if dropped > 0 {
            self.notes.push(LogNote::NotUtf8(dropped));
        }
        md
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.conn.is_ready() && !self.conn.is_draining()
    }

    /// Caller: whether a new call must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.conn.room() <= self.queue.kept() && self.is_ready()
    }

    /// Puts a call at the end of the queue, and returns its ticket.
    pub(crate) fn join_queue(&mut self, waker: &Waker, deadline: Option<Instant>) -> u64 {
        self.queue.join(waker.clone(), deadline)
    }

    /// Whether a call may leave the queue and open now.
    pub(crate) fn poll_queue(
        &mut self,
        ticket: u64,
        waker: &Waker,
        deadline: Option<Instant>,
    ) -> Turn {
        let (turn, replaced) = self.queue.poll(ticket, waker);
        push_some(replaced, &mut self.replaced);
        // The limit may have become stricter since the call was woken.
        if turn == Turn::Now && self.is_full() {
            self.queue.put_back(ticket, waker.clone(), deadline);
            return Turn::Later;
        }
        turn
    }

    /// Removes a call from the queue that did not open.
    pub(crate) fn leave_queue(&mut self, ticket: u64) {
        let waker = self.queue.leave(ticket);
        push_some(waker, &mut self.replaced);
    }

    /// Wakes as many waiting calls as may open; all of them if they will be refused.
    fn give_turns(&mut self) {
        let room = match self.is_ready() {
            true => self.conn.room(),
            false => usize::MAX,
        };
        while let Some(waker) = self.queue.next_turn(room) {
            self.pending_wakes.push(waker);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.conn.poll_timeout(), self.queue.next_deadline()];
        timers.into_iter().flatten().min()
    }

    /// Fires all timers that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.conn.handle_timeout(now);
        while let Some(waker) = self.queue.next_expired(now) {
            self.pending_wakes.push(waker);
        }
    }

    fn driver_is_needed(&self) -> bool {
        let timer = match (self.poll_timeout(), self.driver_timeout) {
            (Some(due), Some(armed)) => due < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let resume = self.driver_paused && self.conn.wants_input();
        let serve = !self.reading && !self.opened.is_empty();
        timer || resume || serve || self.outbound_lost || self.conn.end_reason().is_some()
    }

    fn on_event(&mut self, event: Event, actions: &mut Actions) {
        match event {
            Event::Readable(id) => self.wake_reader(id),
            Event::Writable(id) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    push_some(slot.writer.take(), &mut self.pending_wakes);
                }
            }
            Event::Opened {
                id,
                method,
                headers,
                deadline,
                ..
            } => {
                // Its holders are the task that serves it and its request body.
                self.hold(id, 2);
                if let Some(slot) = self.slots.get_mut(&id) {
                    self.awake.add(slot);
                }
                self.opened.push(Opened {
                    id,
                    method,
                    headers,
                    has_deadline: deadline.is_some(),
                });
            }
            Event::Cancelled { id, error, .. } => self.on_cancelled(id, error),
            Event::Notice(notice) => {
                if let Some(told) = &mut self.told {
                    told.merge(notice);
                }
            }
            Event::Note(note) => self.notes.push(LogNote::Core(note)),
            Event::Ready => actions.lifecycle = Some(Lifecycle::Ready),
            Event::PeerReady => actions.lifecycle = Some(Lifecycle::Routed),
            Event::Ended(reason) => actions.lifecycle = Some(Lifecycle::Ended(reason)),
            _ => {}
        }
    }

    fn on_cancelled(&mut self, id: StreamId, error: StreamError) {
        // It was cancelled before its handler was created.
        if let Some(at) = self.opened.iter().rposition(|opened| opened.id == id) {
            self.opened.remove(at);
            if let Some(mut slot) = self.slots.remove(&id) {
                self.awake.remove(&mut slot);
            }
            self.conn.handler_done(id);
        } else if let Some(slot) = self.slots.get_mut(&id) {
            slot.failed = Some(Box::new(Failure::Stream(error)));
            push_some(slot.reader.take(), &mut self.pending_wakes);
            push_some(slot.writer.take(), &mut self.pending_wakes);
        }
    }

    /// Adds a slot for a call, with a number of holders.
    pub(crate) fn hold(&mut self, id: StreamId, holders: u8) {
        self.slots.entry(id).or_default().holders += holders;
    }

    /// Releases a call for one holder. Returns the slot to the last holder, to be dropped without the
    /// lock.
    #[must_use = "to be dropped without the lock"]
    pub(crate) fn release(&mut self, id: StreamId) -> Option<Slot> {
        let Entry::Occupied(mut slot) = self.slots.entry(id) else {
            return None;
        };
        let holders = slot.get().holders.saturating_sub(1);
        slot.get_mut().holders = holders;
        if holders > 0 {
            return None;
        }
        let mut slot = slot.remove();
        self.awake.remove(&mut slot);
        Some(slot)
    }

    /// Handler: releases a call whose handler is done, and wakes its request body, which may outlive the
    /// handler.
    #[must_use = "to be dropped without the lock"]
    pub(crate) fn leave(&mut self, id: StreamId) -> Option<Slot> {
        let slot = self.slots.get_mut(&id)?;
        slot.handler_done = true;
        self.awake.remove(slot);
        push_some(slot.reader.take(), &mut self.pending_wakes);
        self.conn.handler_done(id);
        self.release(id)
    }

    pub(crate) fn slot(&mut self, id: StreamId) -> Option<&mut Slot> {
        self.slots.get_mut(&id)
    }

    /// The receiving half of a stream.
    pub(crate) fn recv(&mut self, id: StreamId) -> RecvStream<'_> {
        self.conn.recv_stream(id)
    }

    /// Wakes the reader of a stream.
    pub(crate) fn wake_reader(&mut self, id: StreamId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && let Some(reader) = slot.reader.take()
        {
            self.pending_wakes.push(reader);
            self.awake.add(slot);
        }
    }

    /// Registers the waker for when a stream is readable.
    pub(crate) fn wait_read(&mut self, id: StreamId, waker: &Waker) {
        if let Some(slot) = self.slots.get_mut(&id) {
            self.awake.remove(slot);
            register(&mut slot.reader, waker, &mut self.replaced);
        }
    }

    /// Registers the waker for when a stream is writable or has ended.
    pub(crate) fn wait_write(&mut self, id: StreamId, waker: &Waker) {
        if let Some(slot) = self.slots.get_mut(&id) {
            register(&mut slot.writer, waker, &mut self.replaced);
        }
    }

    /// Whether tasks that the driver woke have not run yet.
    pub(crate) fn is_more_coming(&self) -> bool {
        self.awake.count > 0
    }

    /// Registers the transport's writer.
    pub(crate) fn wait_outbound(&mut self, waker: &Waker) {
        register(&mut self.outbound, waker, &mut self.replaced);
    }

    /// Notes that the transport dropped the outbound body. With `ask_driver`, the driver finds the reason
    /// in what it receives, even if it has not started: the far end may answer and end at once.
    pub(crate) fn lose_outbound(&mut self, ask_driver: bool) {
        if ask_driver {
            self.outbound_lost = true;
        } else {
            self.conn.handle_lost(outbound_dropped());
        }
    }

    pub(crate) fn outbound_is_lost(&self) -> bool {
        self.outbound_lost
    }

    /// Registers the driver, its timer, and whether it reads.
    pub(crate) fn wait_driver(&mut self, waker: &Waker, timeout: Option<Instant>, paused: bool) {
        register(&mut self.driver, waker, &mut self.replaced);
        self.driver_timeout = timeout;
        self.driver_paused = paused;
    }
}

/// The error of a tunnel whose transport dropped the outbound body without a reason.
pub(crate) fn outbound_dropped() -> ConnectionError {
    ConnectionError::TransportLost(TransportCause::StreamDropped.into())
}

fn register(place: &mut Option<Waker>, waker: &Waker, replaced: &mut Wakers) {
    if place.as_ref().is_some_and(|old| old.will_wake(waker)) {
        return;
    }
    push_some(place.replace(waker.clone()), replaced);
}

fn push_some(waker: Option<Waker>, to: &mut Wakers) {
    if let Some(waker) = waker {
        to.push(waker);
    }
}
