//! The table of streams, and the counters, queues and timers that belong to it.
//!
//! Streams are added and removed here, together with all that belongs to them, so that the counters
//! and queues stay consistent. [`Context`] changes them for one stream.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::admission::Admission;
use super::assembly::Assembly;
use super::context::{Context, allow_late_frames};
use super::counts::{Counts, Stats};
use super::flow::Window;
use super::hash::StreamIdHash;
use super::recv::Chunk;
use super::released::Outgoing;
use super::schedule::{Refusal, Schedule};
use super::send::Opening;
use super::state::RecvState;
use super::stream::Stream;
use super::{Revision, StreamId};
use crate::event::Event;
use crate::timer::Timers;
use crate::{Code, Config, Limit, Side, Status, StreamError};

/// All streams, with the state that must change together with them.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) side: Side,
    pub(crate) config: Config,
    streams: HashMap<i64, Box<Stream>, StreamIdHash>,
    pub(crate) counts: Counts,
    pub(crate) schedule: Schedule,
    pub(crate) timers: Timers,
    pub(crate) events: VecDeque<Event>,
    /// The cost of each message in its stream's window beside its payload, in bytes. Zero unless
    /// both ends offer message credit.
    pub(crate) message_cost: u8,
    /// Whether the peer may send probes, and answers them.
    pub(crate) answers_probes: bool,
    /// Whether both ends accept compressed messages.
    pub(crate) carries_compressed: bool,
    /// The number of streams that the peer serves at once, if it has announced one.
    pub(crate) peer_max_streams: Option<usize>,
    pub(crate) out: Outgoing,
    admission: Admission,
    assembly: Assembly,
}

/// Whether a `close_stream` or a `cancel` is sent to the peer when this side ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Nothing is sent.
    None,
    /// It is sent unless many refusals wait: the peer ends the call by itself, or does not need the
    /// reply.
    IfRoom,
    /// It is sent: the peer waits for the call's end.
    Needed,
}

impl Store {
    pub(crate) fn new(side: Side, config: Config) -> Self {
        Self {
            side,
            counts: Counts::new(&config),
            config,
            streams: HashMap::default(),
            schedule: Schedule::default(),
            timers: Timers::default(),
            events: VecDeque::new(),
            message_cost: 0,
            answers_probes: false,
            carries_compressed: false,
            peer_max_streams: None,
            admission: Admission::default(),
            assembly: Assembly::default(),
            out: Outgoing::default(),
        }
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Stream> {
        self.streams.get(&id).map(|s| &**s)
    }

    pub(crate) fn get_mut(&mut self, id: i64) -> Option<&mut Stream> {
        self.streams.get_mut(&id).map(|s| &mut **s)
    }

    /// Borrows a stream and the rest of the store.
    pub(crate) fn split(&mut self, id: i64) -> Option<(&mut Stream, Context<'_>)> {
        let stream = self.streams.get_mut(&id)?;
        let rest = Context {
            config: &self.config,
            counts: &mut self.counts,
            schedule: &mut self.schedule,
            events: &mut self.events,
            out: &mut self.out,
        };
        Some((stream, rest))
    }

    /// Adds a piece that was read to its message; returns the message when it is whole.
    pub(crate) fn assemble(&mut self, id: i64, piece: Chunk) -> Option<Bytes> {
        let unread = self.get(id).map_or(0, |stream| stream.recv.unread());
        self.assembly.add(id, piece, unread, &mut self.out)
    }

    /// How many more streams may be opened.
    pub(crate) fn room(&self) -> usize {
        let own = self.config.v.max_concurrent_streams;
        let max = self.peer_max_streams.map_or(own, |peers| own.min(peers));
        max.saturating_sub(self.counts.streams + self.schedule.cancels.in_flight())
    }

    /// A stream that is not in the table yet.
    pub(crate) fn new_stream(
        &self,
        id: i64,
        revision: Revision,
        first_credit: Window,
        opening: Option<Box<Opening>>,
    ) -> Stream {
        let cost = match revision {
            Revision::Zero => 0,
            Revision::One => self.message_cost,
        };
        let compressed = self.carries_compressed;
        Stream::new(
            id,
            revision,
            first_credit,
            opening,
            cost,
            compressed,
            &self.config,
        )
    }

    pub(crate) fn insert(&mut self, mut stream: Stream, deadline: Option<Instant>) {
        stream.deadline = deadline;
        if let Some(at) = deadline {
            self.timers.add_deadline(at, stream.id);
        }
        self.counts.inc_streams();
        self.streams.insert(stream.id, Box::new(stream));
    }

    /// Handler: puts a call into the table. The call is announced to the application as soon as a
    /// place is free.
    pub(crate) fn accept(&mut self, mut stream: Stream, deadline: Option<Instant>, opened: Event) {
        let (id, max) = (stream.id, self.config.v.max_concurrent_streams);
        let opened = self.admission.enter(id, opened, self.counts.streams, max);
        stream.announced = opened.is_some();
        self.insert(stream, deadline);
        self.events.extend(opened);
    }

    /// Handler: announces the calls that have a place now.
    fn announce(&mut self) {
        let max = self.config.v.max_concurrent_streams;
        while let Some((id, opened)) = self.admission.next(self.counts.streams, max) {
            self.events.push_back(opened);
            if let Some(stream) = self.get_mut(id) {
                stream.announced = true;
                if stream.recv.reader_told {
                    self.events.push_back(Event::Readable(StreamId(id)));
                }
            }
        }
    }

    /// Handler: the handler of a cancelled call has stopped.
    pub(crate) fn handler_done(&mut self, id: i64) {
        self.admission.handler_done(id);
        self.announce();
    }

    /// The tunnel has ended: no further call is announced. Returns the calls that were not
    /// announced.
    pub(crate) fn stop_announcing(&mut self) -> Vec<i64> {
        self.admission.clear()
    }

    /// All ids, in ascending order.
    pub(crate) fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<_> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The stream with the most unread bytes, of all streams or only those of revision zero.
    pub(crate) fn fullest(&self, unwindowed_only: bool) -> Option<i64> {
        self.streams
            .values()
            .filter(|s| !unwindowed_only || s.recv.window.is_none())
            .filter(|s| s.recv.unread_messages() > 0)
            .max_by_key(|s| (s.recv.unread(), s.recv.unread_messages(), s.id))
            .map(|s| s.id)
    }

    /// Removes a stream and all of its state.
    pub(crate) fn remove(&mut self, id: i64) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        if let Some(at) = stream.deadline.take() {
            self.timers.remove_deadline(at, id);
        }
        self.discard_unread(&mut stream);
        if let Some(w) = &stream.recv.window {
            self.counts.spare_used -= w.growth() as usize;
        }
        self.counts.queued -= stream.send.abort(&mut self.out);
        self.counts.stalls.set(&mut stream.stalled, false);
        allow_late_frames(&mut stream, &mut self.counts);
        let streams = &self.streams;
        if stream.in_control {
            self.schedule.control.forget(|id| streams.contains_key(&id));
        }
        if stream.in_data {
            self.schedule.data.forget(|id| streams.contains_key(&id));
        }
        self.counts.dec_streams();
        self.admission.leave(id);
        self.announce();
        debug_assert!(
            self.counts.streams > 0 || (self.counts.is_idle() && self.timers.deadline_count() == 0),
            "when the last stream is gone, every counter is zero: {:?}",
            self.counts
        );
    }

    fn discard_unread(&mut self, stream: &mut Stream) {
        self.assembly.forget(stream.id);
        Context {
            config: &self.config,
            counts: &mut self.counts,
            schedule: &mut self.schedule,
            events: &mut self.events,
            out: &mut self.out,
        }
        .discard_unread(stream);
    }

    /// Ends a stream with an error of this side or of the tunnel.
    ///
    /// A caller's stream stays until its application has read the error; a handler's stream is
    /// removed at once.
    pub(crate) fn fail(&mut self, id: i64, error: StreamError, reply: Reply) {
        match self.side {
            Side::Caller => self.fail_caller(id, error, reply, false),
            Side::Handler => self.fail_handler(id, error, reply),
        }
    }

    /// Ends a stream because of a fault of the peer. Like [`fail`](Self::fail), but a caller still
    /// reads the messages that came before the fault.
    pub(crate) fn fault(&mut self, id: i64, error: StreamError, reply: Reply) {
        match self.side {
            Side::Caller => self.fail_caller(id, error, reply, true),
            Side::Handler => self.fail_handler(id, error, reply),
        }
    }

    fn fail_caller(&mut self, id: i64, mut error: StreamError, reply: Reply, keep_unread: bool) {
        let Some((stream, mut rest)) = self.split(id) else {
            return;
        };
        let known_to_peer = stream.send.opening.is_none();
        // An earlier end stays in force.
        if stream.recv.state == RecvState::Open {
            error.not_processed |= !known_to_peer;
            allow_late_frames(stream, rest.counts);
            if !keep_unread {
                rest.discard_unread(stream);
            }
            stream.recv.fail(error);
            if reply != Reply::None && known_to_peer {
                rest.schedule.cancels.push(id);
            }
        }
        rest.end_sending(stream);
        rest.tell_reader(stream);
        let deadline = stream.deadline.take();
        if let Some(at) = deadline {
            self.timers.remove_deadline(at, id);
        }
    }

    fn fail_handler(&mut self, id: i64, error: StreamError, reply: Reply) {
        if self.get(id).is_none() {
            return;
        }
        let unseen = self.admission.is_waiting(id);
        if !unseen {
            // The running handler is counted first, because removing the stream may announce
            // another call.
            self.admission.cancelled(id);
        }
        self.remove(id);
        if reply != Reply::None {
            self.refuse(id, error.to_status(), unseen, reply);
        }
        if !unseen {
            let id = StreamId(id);
            self.events.push_back(Event::Cancelled { id, error });
        }
    }

    /// Handler: answers a stream that is not, or no longer, in the table.
    pub(crate) fn refuse(&mut self, id: i64, status: Status, not_processed: bool, reply: Reply) {
        let refusals = &mut self.schedule.refusals;
        if reply == Reply::Needed || refusals.len() < self.config.v.max_pending_refusals / 2 {
            refusals.push(Refusal {
                id,
                status,
                not_processed,
            });
        }
    }

    /// Ends a stream to free its memory. Unlike [`fail`](Self::fail) it drops all unread data, even
    /// of a stream that has ended and was not read yet.
    pub(crate) fn evict(&mut self, id: i64, message: impl Into<Cow<'static, str>>) {
        let error = StreamError::new(Code::ResourceExhausted, message, crate::Initiator::Library);
        if self.side == Side::Caller
            && let Some((stream, mut rest)) = self.split(id)
            && stream.recv.state == RecvState::Ended
        {
            rest.discard_unread(stream);
            stream.recv.fail(error);
            rest.tell_reader(stream);
            return;
        }
        self.fail(id, error, Reply::Needed);
    }

    /// Ends the stream that holds the most memory, for received data and data to be sent. Returns
    /// `false` if no stream holds any.
    pub(crate) fn shed(&mut self) -> bool {
        let holders = self.streams.values().filter(|s| s.memory() > 0);
        let fullest = holders.max_by_key(|s| (s.memory(), s.id)).map(|s| s.id);
        if let Some(id) = fullest {
            let message = "the tunnels together hold too much memory, and this call held most";
            self.evict(id, message);
        }
        fullest.is_some()
    }

    /// Memory is overcommitted: ends the fullest streams until the sum is within the limit.
    pub(crate) fn enforce_buffer_cap(&mut self) {
        if !self.config.v.overcommit {
            return;
        }
        while self.counts.unread > self.config.v.max_buffered_bytes {
            let Some(id) = self.fullest(false) else { break };
            self.counts.limits.count(Limit::BufferedBytes);
            self.evict(id, Limit::BufferedBytes.to_string());
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            streams: self.counts.streams,
            unread_bytes: self.counts.unread,
            spare_used: self.counts.spare_used,
            queued_bytes: self.counts.queued,
            deadlines: self.timers.deadline_count(),
            waiting_calls: self.admission.waiting(),
            cancelled_handlers: self.admission.cancelled_handlers(),
            pending_refusals: self.schedule.refusals.len(),
            streams_total: self.counts.streams_total,
            bytes_sent: self.counts.bytes_sent,
            bytes_received: self.counts.bytes_received,
            messages_sent: self.counts.messages_sent,
            messages_received: self.counts.messages_received,
            stalled_streams: self.counts.stalls.active,
            stalls: self.counts.stalls.total,
            stalled: self.counts.stalls.time,
            round_trip: None,
            round_trips: 0,
            limits: self.counts.limits,
        }
    }
}
