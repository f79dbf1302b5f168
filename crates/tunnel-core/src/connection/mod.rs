//! One tunnel, seen from one of its ends.

mod control;
mod input;
mod lifecycle;
mod liveness;
mod negotiation;
mod output;
mod pause;
mod phase;
mod stream_handles;

use std::time::Instant;

use self::liveness::Liveness;
use self::phase::Phase;
use crate::event::{Event, Note};
use crate::streams::counts::Stats;
use crate::streams::released::Released;
use crate::streams::send::Opening;
use crate::streams::store::{Reply, Store};
use crate::streams::{Revision, StreamId, flow::Window};
use crate::timer::timeout_of;
use crate::{
    Code, Config, EndReason, Initiator, Metadata, Notice, OpenError, Side, Status, StreamError,
};

pub use negotiation::{
    COMPRESSED_MESSAGES_HEADER, DRAIN_HEADER, ECHO_HEADER, HEARTBEAT_HEADER, MAX_STREAMS_HEADER,
    MESSAGE_CREDIT_HEADER, NEGOTIATE_HEADER, NEGOTIATE_VALUE, NOT_PROCESSED_KEY, NOTICES_HEADER,
    OPAQUE_TEXT_HEADER, Offer, READY_HEADER, TUNNEL_ID_HEADER,
};
pub use stream_handles::{BodyRead, Read, RecvStream, SendStream};

/// The state of one tunnel at one of its ends: negotiation, streams, flow control, limits,
/// timers. No locks, wakers, sockets or clocks.
///
/// # The contract
///
/// The methods are of four kinds.
///
/// 1. **Input**: [`start`](Self::start) once, then [`handle_frame`](Self::handle_frame) for each
///    received frame in order, and [`handle_activity`](Self::handle_activity) when bytes arrive;
///    [`handle_timeout`](Self::handle_timeout) when a timer is due and everything received so far
///    was handled; [`handle_end`](Self::handle_end) or [`handle_lost`](Self::handle_lost) when the
///    transport ends.
/// 2. **Operations** of the local user: [`open`](Self::open),
///    [`send_stream`](Self::send_stream), [`recv_stream`](Self::recv_stream),
///    [`cancel`](Self::cancel), [`reset`](Self::reset), [`handler_done`](Self::handler_done),
///    [`drain`](Self::drain), [`close`](Self::close).
/// 3. **Output**, to be drained after any call of the first two kinds: [`poll_event`](Self::poll_event)
///    until it returns `None`; when [`wants_transmit`](Self::wants_transmit) and the transport has room,
///    [`transmit`](Self::transmit); [`poll_timeout`](Self::poll_timeout) for when to call
///    `handle_timeout`; [`wants_input`](Self::wants_input) for whether to read on from the transport.
/// 4. **Getters**, at any time.
///
/// The transport pulls: [`transmit`](Self::transmit) chooses and encodes frames when it is called,
/// as many as its budget allows. No frame is queued before that. Memory is therefore bounded by the
/// streams' buffers, and a large transfer does not delay a small call.
///
/// Time is an argument and must not go backwards. An earlier time than the last one counts as the
/// last one.
///
/// # Failures
///
/// A protocol error on one stream ends that stream. The tunnel ends when the peer's bytes cannot
/// be understood any more, or when the peer exceeds a limit that protects the whole tunnel: the
/// error is returned, and [`Event::Ended`] is the last event. No input causes a panic.
///
/// ```
/// use std::time::Instant;
/// use tunnel_core::{Config, Connection, Event, Metadata, Offer, Read, Side};
/// use tunnel_core::{FrameRef, FrameSink};
///
/// /// A transport that carries frames as they are.
/// #[derive(Default)]
/// struct Wire(Vec<tunnel_core::Frame>);
/// impl FrameSink for Wire {
///     fn frame(&mut self, frame: FrameRef<'_>) -> usize {
///         self.0.push(frame.to_owned());
///         1
///     }
/// }
/// fn carry(from: &mut Connection, to: &mut Connection, now: Instant) {
///     let mut wire = Wire::default();
///     from.transmit(now, usize::MAX, &mut wire);
///     for frame in wire.0 {
///         to.handle_frame(now, frame).expect("a legal frame");
///     }
/// }
///
/// let now = Instant::now();
/// let mut caller = Connection::new(Side::Caller, Config::default());
/// let mut handler = Connection::new(Side::Handler, Config::default());
/// caller.start(now, Offer::of(&Config::default()));
/// handler.start(now, Offer::of(&Config::default()));
/// carry(&mut handler, &mut caller, now); // settings
///
/// let id = caller.open(now, "/test.Echo/Say", Metadata::new())?;
/// caller.send_stream(id).message("hello".into())?;
/// caller.send_stream(id).finish()?;
/// carry(&mut caller, &mut handler, now);
///
/// let opened = std::iter::from_fn(|| handler.poll_event())
///     .find_map(|e| if let Event::Opened { id, .. } = e { Some(id) } else { None })
///     .expect("a call has come");
/// let Read::Data(message) = handler.recv_stream(opened).message() else { panic!("a message has come") };
/// assert_eq!(&message[..], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    store: Store,
    /// Whether both ends negotiate.
    negotiated: bool,
    /// Whether the peer understands a drain notice. Such a peer runs this library.
    peer_knows_drain: bool,
    /// Caller: whether the peer waits for [`announce_ready`](Self::announce_ready). Handler: whether
    /// it is to report the peer's first frame.
    ready_is_due: bool,
    /// Caller: the revision of new streams.
    revision: Revision,
    /// Caller: the credit new streams start with.
    first_credit: Window,
    /// Caller: the id of the next stream.
    next_id: i64,
    /// Caller: the highest id written. The peer knows no higher id.
    highest_sent: i64,
    /// Handler: the highest id seen.
    highest_seen: i64,
    /// The local side takes no new calls.
    draining: bool,
    /// The peer was asked to replace the tunnel.
    retiring: bool,
    /// The drain notice was scheduled.
    drain_announced: bool,
    /// The drain's deadline has passed.
    drain_cut: bool,
    /// The peer takes no new calls.
    peer_draining: bool,
    /// Whether both ends understand notices.
    knows_notices: bool,
    /// A notice that waits until the tunnel is ready.
    untold: Option<Box<Notice>>,
    /// Whether reading is paused for refusals that the peer does not read.
    refusals_pause: bool,
    /// Heartbeats, if they were negotiated.
    liveness: Option<Liveness>,
    /// Caller: when a call was first sent since the peer was last heard.
    unanswered_since: Option<Instant>,
    /// The latest time seen.
    now: Option<Instant>,
}

impl Connection {
    /// A tunnel that is being opened.
    pub fn new(side: Side, config: Config) -> Self {
        Self {
            phase: Phase::Opening,
            store: Store::new(side, config),
            negotiated: false,
            peer_knows_drain: false,
            ready_is_due: false,
            revision: Revision::Zero,
            first_credit: Window::default(),
            // The first id is 1, as in the Go library. The protocol allows 0.
            next_id: 1,
            highest_sent: -1,
            highest_seen: -1,
            draining: false,
            retiring: false,
            drain_announced: false,
            drain_cut: false,
            peer_draining: false,
            knows_notices: false,
            untold: None,
            refusals_pause: false,
            liveness: None,
            unanswered_since: None,
            now: None,
        }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.store.side
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.store.config
    }

    /// Caller: the revision that new streams get. Handler: the highest that streams may have.
    /// Meaningful once the tunnel is ready.
    pub fn revision(&self) -> Revision {
        match self.store.side {
            Side::Caller => self.revision,
            Side::Handler if self.negotiated && self.config().revisions().allows_one() => {
                Revision::One
            }
            Side::Handler => Revision::Zero,
        }
    }

    /// Whether the tunnel is negotiated and has not ended.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether this side or its peer accepts no new calls.
    pub fn is_draining(&self) -> bool {
        self.draining || self.peer_draining
    }

    /// How the tunnel ended, if it has.
    pub fn end_reason(&self) -> Option<&EndReason> {
        match &self.phase {
            Phase::Ended(reason) => Some(reason),
            _ => None,
        }
    }

    /// How many streams are in the table.
    pub fn active_streams(&self) -> usize {
        self.store.counts.streams
    }

    /// How many more streams the limit on concurrent streams allows now.
    pub fn room(&self) -> usize {
        self.store.room()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let mut stats = self.store.stats();
        if let Some(liveness) = &self.liveness {
            (stats.round_trip, stats.round_trips) = liveness.round_trips();
        }
        stats
    }

    /// Whether an operation since the last input needs the time: call [`set_time`](Self::set_time).
    /// Only [`Stats::stalled`](Stats) depends on it.
    pub fn wants_time(&self) -> bool {
        self.store.counts.stalls.has_new()
    }

    /// Takes the time of the operations since the last input or transmit.
    pub fn set_time(&mut self, now: Instant) {
        self.advance(now);
    }

    /// The memory that the streams hold, in bytes: unread messages, room that readers have reserved
    /// for messages they have begun to read, and messages that wait to be sent.
    pub fn memory(&self) -> usize {
        self.store.counts.memory()
    }

    /// Ends the stream that holds the most memory with RESOURCE_EXHAUSTED, for a runtime whose
    /// tunnels share a memory budget. Returns `false` if no stream holds memory.
    pub fn shed(&mut self) -> bool {
        let shed = self.store.shed();
        self.after_change();
        shed
    }

    /// Opens a stream: a call begins.
    ///
    /// A `grpc-timeout` among the headers is the call's deadline: it is sent unchanged, and
    /// enforced here as well. Nothing is sent before [`transmit`](Self::transmit).
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; the stream then does not exist.
    pub fn open(
        &mut self,
        now: Instant,
        method: &str,
        headers: Metadata,
    ) -> Result<StreamId, OpenError> {
        let now = self.advance(now);
        if let Err(error) = self.check_can_open(method, &headers) {
            self.store.counts.limits.count(error.limit());
            return Err(error);
        }
        let deadline = match timeout_of(&headers) {
            Some(t) if t.is_zero() => return Err(OpenError::DeadlineExceeded),
            Some(t) => now.checked_add(t),
            None => None,
        };
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(OpenError::IdsExhausted)?;
        let method = match method.strip_prefix('/') {
            Some(_) => method.to_owned(),
            None => format!("/{method}"),
        };
        let opening = Box::new(Opening { method, headers });
        let (revision, credit) = (self.revision, self.first_credit);
        let mut stream = self.store.new_stream(id, revision, credit, Some(opening));
        stream.in_control = true;
        self.store.schedule.control.push(id);
        self.store.insert(stream, deadline);
        Ok(StreamId(id))
    }

    fn check_can_open(&self, method: &str, headers: &Metadata) -> Result<(), OpenError> {
        if self.store.side != Side::Caller {
            return Err(OpenError::NotCaller);
        }
        match &self.phase {
            Phase::Ready => {}
            Phase::Ended(reason) => return Err(OpenError::Ended(reason.clone())),
            Phase::Opening | Phase::AwaitingSettings => return Err(OpenError::NotReady),
        }
        if self.is_draining() {
            return Err(OpenError::Draining);
        }
        if method.is_empty() || method == "/" {
            return Err(OpenError::EmptyMethod);
        }
        let limit = self.config().max_metadata_size();
        let size = headers.size().saturating_add(method.len());
        if size > limit {
            return Err(OpenError::MetadataSize { size, limit });
        }
        if self.room() == 0 {
            return Err(OpenError::StreamLimit(self.store.counts.streams));
        }
        Ok(())
    }

    /// The sending half of a stream, borrowed for one or a few operations. Operations on a stream
    /// that has gone fail with [`WriteError::Gone`](crate::WriteError::Gone).
    pub fn send_stream(&mut self, id: StreamId) -> SendStream<'_> {
        SendStream::new(self, id)
    }

    /// The receiving half of a stream, borrowed for one or a few operations. Reading a stream that
    /// has gone returns [`Read::Gone`].
    pub fn recv_stream(&mut self, id: StreamId) -> RecvStream<'_> {
        RecvStream::new(self, id)
    }

    /// Caller: cancels a call. The stream is gone at once. A cancel is sent unless the handler has
    /// ended the call or the call was never sent.
    ///
    /// Does nothing for a stream that has gone. For a handler see [`reset`](Self::reset).
    pub fn cancel(&mut self, id: StreamId) {
        if self.store.side != Side::Caller {
            debug_assert!(false, "a handler resets, a caller cancels");
            return;
        }
        let error = StreamError::new(Code::Cancelled, "cancelled", Initiator::User);
        self.store.fail(id.0, error, Reply::Needed);
        self.store.remove(id.0);
        self.after_change();
    }

    /// Handler: ends a call at once with a status; data still queued is dropped.
    ///
    /// Does nothing for a stream that has gone. To end a call behind its messages see
    /// [`SendStream::close`].
    pub fn reset(&mut self, id: StreamId, status: Status) {
        if self.store.side != Side::Handler || self.store.get(id.0).is_none() {
            return;
        }
        self.store.remove(id.0);
        let status = self.bounded_status(status);
        self.store.refuse(id.0, status, false, Reply::Needed);
        self.after_change();
    }

    /// Handler: reports, after [`Event::Cancelled`], that the call's handler has stopped. Until then
    /// the call counts against
    /// [`max_concurrent_streams`](crate::ConfigBuilder::max_concurrent_streams), and new calls over
    /// that limit wait.
    ///
    /// Does nothing for a call that was not cancelled.
    pub fn handler_done(&mut self, id: StreamId) {
        self.store.handler_done(id.0);
    }

    /// Returns the next event for the runtime. Call it until it returns `None` after each input
    /// and operation.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.store.events.pop_front()
    }

    /// Keeps buffers that are no longer needed until [`take_released`](Self::take_released), instead
    /// of dropping them. For a runtime that holds the connection behind a lock: dropping a buffer
    /// may run code of the application that made it.
    pub fn keep_released(&mut self) {
        self.store.out.kept = true;
    }

    /// Whether [`take_released`](Self::take_released) has buffers to return.
    pub fn has_released(&self) -> bool {
        !self.store.out.is_empty()
    }

    /// Returns the buffers that are no longer needed, for the caller to drop. Call it after each
    /// input, operation and [`transmit`](Self::transmit) if buffers are
    /// [kept](Self::keep_released).
    #[must_use = "to be dropped without a lock"]
    pub fn take_released(&mut self) -> Released {
        self.store.out.take()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` if no timer is set.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.store.timers.next()
    }

    /// Estimates how many bytes [`transmit`](Self::transmit) would write now without a budget, to
    /// size its buffer. Data that waits for credit does not count.
    pub fn transmit_hint(&self) -> usize {
        /// The number of streams to look at. The others are assumed to be alike.
        const ASKED: usize = 8;
        let schedule = &self.store.schedule;
        let streams = schedule.data.next(ASKED);
        let data: usize = streams
            .filter_map(|id| self.store.get(id))
            .map(|stream| stream.send.sendable())
            .sum();
        let data = data * schedule.data.live().div_ceil(ASKED);
        // Frame heads add up to an eighth to small messages and hardly anything to large ones.
        data + data / 8 + schedule.control_bytes() + 64
    }

    /// Whether [`transmit`](Self::transmit) has something to write.
    pub fn wants_transmit(&self) -> bool {
        self.phase == Phase::Ready && !self.store.schedule.is_empty()
    }

    /// Whether to read on from the transport.
    ///
    /// It is `false` while too much data of revision-zero streams is unread (they have no flow
    /// control), and while the peer does not read its refusals. A frame that arrives nevertheless
    /// is handled.
    pub fn wants_input(&self) -> bool {
        !self.store.counts.paused && !self.refusals_pause
    }

    /// Adds a note, unless the tunnel has ended: its end is the last event.
    fn note(&mut self, note: Note) {
        if self.end_reason().is_none() {
            self.store.events.push_back(Event::Note(note));
        }
    }

    /// The time of an input or operation: never earlier than the last.
    fn advance(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |last| last.max(now));
        self.now = Some(now);
        self.store.counts.stalls.advance(now);
        now
    }
}
