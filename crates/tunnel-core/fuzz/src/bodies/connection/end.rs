//! One end, its application, and a peer that checks what it is sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::{
    Code, Connection, ConnectionError, EndReason, Event, Frame, FrameKind, FrameRef, FrameSink,
    Metadata, OpenError, Read, Side, Status, StreamId,
};

use super::super::Input;
use super::app::Call;
use super::frames::metadata;
use super::peer::Peer;
use super::setup::Setup;
use super::{bytes, op};

/// The message of a close; a reset has another.
pub(crate) const CLOSED: &str = "the end";

/// Carries each frame to the peer as a byte stream would.
struct Wire<'a> {
    from: Side,
    peer: &'a mut Peer,
    pipe: &'a mut VecDeque<Frame>,
    drained: bool,
}

impl FrameSink for Wire<'_> {
    fn frame(&mut self, frame: FrameRef<'_>) -> usize {
        let mut bytes = BytesMut::new();
        let len = FrameWriter::new(self.from, &mut bytes).frame(frame);
        assert_eq!(len, bytes.len());
        let mut deframer = Deframer::new(len);
        deframer.push(bytes.freeze());
        let frame = deframer
            .decode_next(self.from)
            .expect("we read what we write")
            .expect("one frame");
        assert!(!deframer.is_mid_frame());
        self.peer.receives(&frame, self.drained);
        self.pipe.push_back(frame);
        len
    }
}

pub(crate) struct End {
    pub(crate) setup: Setup,
    pub(crate) conn: Connection,
    pub(crate) now: Instant,
    pub(crate) peer: Peer,
    pub(crate) calls: BTreeMap<i64, Call>,
    /// Frames that were written and not delivered.
    pub(crate) pipe: VecDeque<Frame>,
    /// Payload that was received, and that messages to send declared, in bytes.
    pub(crate) fed: usize,
    declared: usize,
    /// Payload received on streams without windows, in bytes.
    fed_unwindowed: usize,
    events: Events,
    pub(crate) drained: bool,
}

/// Events that come at most once.
#[derive(Debug, Default)]
struct Events {
    ready: bool,
    going_away: bool,
    ended: bool,
    opened: Option<StreamId>,
}

impl End {
    /// A tunnel whose outer call is open.
    pub(crate) fn new(setup: Setup, now: Instant) -> Self {
        let mut end = Self {
            conn: Connection::new(setup.side, setup.config()),
            now,
            peer: Peer::new(setup.clone()),
            calls: BTreeMap::new(),
            pipe: VecDeque::new(),
            fed: 0,
            declared: 0,
            fed_unwindowed: 0,
            events: Events::default(),
            drained: false,
            setup,
        };
        end.conn.start(now, end.setup.offer);
        end
    }

    /// An operation of the application or the transport.
    pub(crate) fn apply(&mut self, code: u8, input: &mut Input<'_>) {
        let limit = self.setup.metadata;
        let handler = self.setup.side == Side::Handler;
        match code {
            op::OPEN => drop(self.open(metadata(input.u8(), limit))),
            op::MESSAGE | op::BEGIN | op::WRITE | op::BODY => {
                let call = self.choose(input);
                self.write(code, call, input.u16().into());
            }
            op::FINISH => {
                let call = self.choose(input);
                let (code, trailers) = match handler {
                    true => (input.u8(), input.u8()),
                    false => (0, 0),
                };
                self.finish_sending(call, code, metadata(trailers, limit));
            }
            op::HEADERS => {
                let call = self.choose(input);
                let md = metadata(input.u8(), limit);
                let fits = md.size() <= limit;
                self.with(call, |conn, call| match handler {
                    true => call.sends_headers(fits, conn.send_stream(call.id).headers(md)),
                    false => assert!(conn.send_stream(call.id).headers(md).is_err()),
                });
            }
            op::READ => {
                let call = self.choose(input);
                self.read(call, 1 + input.below(4));
            }
            op::READ_ALL => self.read_all(),
            op::TAKE_HEADERS => {
                let call = self.choose(input);
                self.with(call, |conn, call| {
                    if conn.recv_stream(call.id).take_headers().is_some() {
                        assert_eq!(conn.recv_stream(call.id).take_headers(), None);
                    }
                });
            }
            op::ABANDON => {
                let call = self.choose(input);
                let code = if handler { input.u8() } else { 0 };
                self.abandon(call, code);
            }
            op::TRANSMIT => self.transmit(match input.u8() {
                255 => usize::MAX,
                n => usize::from(n) * 8,
            }),
            op::DRAIN => {
                let millis = input.u8();
                let deadline = self.now + Duration::from_millis(u64::from(millis));
                self.conn.drain(self.now, (millis > 0).then_some(deadline));
                self.drained = true;
            }
            op::WRITABLE => {
                let call = self.choose(input);
                self.with(call, |conn, call| {
                    call.waits = conn.send_stream(call.id).is_writable() == Ok(false);
                });
            }
            _ => {}
        }
    }

    pub(crate) fn choose(&self, input: &mut Input<'_>) -> Option<i64> {
        let choice = input.u8();
        let at = usize::from(choice) % self.calls.len().max(1);
        self.calls.keys().rev().nth(at).copied()
    }

    fn with(&mut self, call: Option<i64>, act: impl FnOnce(&mut Connection, &mut Call)) {
        if let Some(call) = call.and_then(|id| self.calls.get_mut(&id)) {
            act(&mut self.conn, call);
        }
    }

    pub(crate) fn open(&mut self, headers: Metadata) -> Result<i64, OpenError> {
        let before = self.conn.stats();
        let size = headers.size();
        match self.conn.open(self.now, "/a/b", headers) {
            Ok(id) => {
                assert_eq!(self.setup.side, Side::Caller);
                let last = self.calls.last_key_value();
                assert!(last.is_none_or(|(last, _)| *last < id.value()));
                self.calls.insert(id.value(), Call::new(id));
                Ok(id.value())
            }
            Err(error) => {
                let after = self.conn.stats();
                match error.limit() {
                    None => assert_eq!(after, before),
                    Some(limit) => {
                        assert_eq!(after.limit_reached(limit), before.limit_reached(limit) + 1);
                        assert_eq!(after.streams_total, before.streams_total);
                    }
                }
                let ended = matches!(error, OpenError::Ended(_));
                let caller = self.setup.side == Side::Caller;
                assert_eq!(ended, caller && self.conn.end_reason().is_some());
                let too_large = matches!(error, OpenError::MetadataSize { .. });
                assert!(!too_large || size + "/a/b".len() > self.setup.metadata);
                Err(error)
            }
        }
    }

    fn write(&mut self, code: u8, call: Option<i64>, len: usize) {
        let room = self.setup.payload.saturating_sub(self.declared);
        let from = self.setup.side;
        let carried = self.setup.offer.compressed_messages;
        let mut declared = 0;
        self.with(call, |conn, call| {
            let len = match code {
                // Half of the time what is missing, or as much as fits it.
                op::WRITE if len.is_multiple_of(2) => call.unwritten.min(len / 2),
                op::WRITE => len,
                _ => len.min(room),
            };
            let data = bytes(from, call.id.value(), call.given, len);
            let mut send = conn.send_stream(call.id);
            match code {
                op::MESSAGE => {
                    let done = send.message(data);
                    if call.begins(len, done.clone()) {
                        declared = len;
                        call.writes(len, done);
                    }
                }
                // The rest of a message that was begun would come first.
                op::BODY if call.unwritten > 0 => {}
                op::BODY => {
                    let flag = u8::from(carried && len % 2 == 1);
                    let prefix = [&[flag][..], &(len as u32).to_be_bytes()].concat();
                    let done = send.body([&prefix[..], &data].concat().into());
                    if call.begins(len, done.clone()) {
                        declared = len;
                        call.writes(len, done);
                    }
                }
                op::BEGIN if call.begins(len, send.begin_message(len as u32)) => declared = len,
                op::BEGIN => {}
                _ => call.writes(len, send.write(data)),
            }
        });
        self.declared += declared;
    }

    /// Writes all that is missing of a message that was begun.
    pub(crate) fn complete(&mut self, id: i64) {
        let from = self.setup.side;
        self.with(Some(id), |conn, call| {
            let len = call.unwritten;
            let data = bytes(from, id, call.given, len);
            call.writes(len, conn.send_stream(call.id).write(data));
        });
    }

    pub(crate) fn finish_sending(&mut self, call: Option<i64>, code: u8, trailers: Metadata) {
        let code = Code::from_wire((code % 32).into());
        let status = Status::new(code, CLOSED);
        self.with(call, |conn, call| {
            let done = match conn.side() {
                Side::Caller => conn.send_stream(call.id).finish(),
                Side::Handler => conn.send_stream(call.id).close(trailers, status),
            };
            call.finishes(code, done);
        });
    }

    fn abandon(&mut self, call: Option<i64>, code: u8) {
        let code = Code::from_wire((code % 32).into());
        self.with(call, |conn, call| {
            match conn.side() {
                Side::Caller => conn.cancel(call.id),
                Side::Handler => {
                    conn.reset(call.id, Status::new(code, "reset"));
                    call.reset.get_or_insert(code);
                }
            }
            call.end();
        });
    }

    /// Reads a call at most this many times. Returns the last result, unless it was data.
    pub(crate) fn read(&mut self, call: Option<i64>, times: usize) -> Option<Read> {
        let from = self.setup.side.peer();
        let mut last = None;
        self.with(call, |conn, call| {
            for _ in 0..times {
                let read = conn.recv_stream(call.id).read();
                if !call.takes(from, &read) {
                    last = Some(read);
                    break;
                }
            }
        });
        last
    }

    pub(crate) fn read_all(&mut self) {
        let ids: Vec<_> = self.calls.keys().copied().collect();
        for id in ids {
            self.read(Some(id), usize::MAX);
            self.drain_events();
        }
    }

    /// The peer sends a frame.
    pub(crate) fn feed(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        let id = frame.stream_id.value();
        if let FrameKind::Message { data, .. } | FrameKind::MoreData(data) = &frame.kind {
            self.fed += data.len();
            if !self.peer.is_windowed(id) {
                self.fed_unwindowed += data.len();
            }
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.is_fed(&frame.kind);
        }
        self.peer.sends(&frame);
        let ended = self.conn.end_reason().is_some();
        let result = self.conn.handle_frame(self.now, frame);
        if let Err(error) = &result {
            assert!(!ended, "after the end all frames are ignored");
            let reason = EndReason::Error(error.clone());
            assert_eq!(self.conn.end_reason(), Some(&reason));
        }
        self.check_timers();
        result
    }

    pub(crate) fn transmit(&mut self, budget: usize) {
        let (wanted, held) = (self.conn.wants_transmit(), self.conn.stats().spare_used);
        let mut wire = Wire {
            from: self.setup.side,
            peer: &mut self.peer,
            pipe: &mut self.pipe,
            drained: self.drained,
        };
        let wrote = self.conn.transmit(self.now, budget, &mut wire);
        assert!(wrote == 0 || (budget > 0 && wanted));
        assert!(budget < usize::MAX || !self.conn.wants_transmit());
        self.check_timers();
        if budget == usize::MAX && !self.peer.windowed && self.conn.is_ready() {
            assert_eq!(self.conn.stats().queued_bytes, 0, "no window is in the way");
        }
        self.peer.check_granted(&self.calls, held);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.conn.handle_timeout(self.now);
        self.check_timers();
    }

    /// After each input with a time.
    fn check_timers(&self) {
        let next = self.conn.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now), "a timer that is due");
    }

    /// Takes all events; the calls that ended by one.
    pub(crate) fn drain_events(&mut self) -> Vec<i64> {
        let mut cancelled = Vec::new();
        while let Some(event) = self.conn.poll_event() {
            assert!(!self.events.ended, "after the last event: {event:?}");
            match event {
                Event::Ready => {
                    assert!(!std::mem::replace(&mut self.events.ready, true));
                }
                Event::GoingAway { .. } => {
                    assert!(!std::mem::replace(&mut self.events.going_away, true));
                }
                Event::Ended(reason) => {
                    assert_eq!(self.conn.end_reason(), Some(&reason));
                    self.events.ended = true;
                }
                Event::Opened { id, method, .. } => {
                    assert_eq!(self.setup.side, Side::Handler);
                    assert!(method.len() > 1 && method.starts_with('/'));
                    assert!(self.events.opened.is_none_or(|before| before < id));
                    self.events.opened = Some(id);
                    self.calls.insert(id.value(), Call::new(id));
                }
                Event::Readable(id) => self.call(id).readable(),
                Event::Writable(id) => self.call(id).waits = false,
                Event::Cancelled { id, .. } => {
                    assert_eq!(self.setup.side, Side::Handler);
                    let call = self.call(id);
                    assert!(!call.over, "a call ends once");
                    call.end();
                    self.conn.handler_done(id);
                    cancelled.push(id.value());
                }
                Event::Note(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.events.ended, self.conn.end_reason().is_some());
        cancelled
    }

    fn call(&mut self, id: StreamId) -> &mut Call {
        let call = self.calls.get_mut(&id.value());
        call.expect("an event is about a call that is known")
    }

    /// What is true at all times.
    pub(crate) fn check(&self) {
        let (s, stats) = (&self.setup, self.conn.stats());
        assert_eq!(stats.streams, self.conn.active_streams());
        assert!(stats.streams <= s.streams, "{stats:?}");
        assert!(stats.deadlines <= stats.streams, "{stats:?}");
        // Reading pauses at the limit. A lone end's transport ignores that, which adds calls.
        assert!(stats.cancelled_handlers + stats.streams - stats.waiting_calls <= s.streams);
        assert_eq!(stats.bytes_sent, self.peer.received as u64);
        assert!(stats.bytes_received <= self.fed as u64);
        assert!(stats.unread_bytes <= self.fed, "{stats:?}");
        assert!(stats.spare_used <= s.spare(), "{stats:?}");
        assert!(stats.unread_bytes <= self.most_unread(), "{stats:?}");
        if stats.streams == 0 {
            let left = [
                stats.unread_bytes,
                stats.spare_used,
                stats.queued_bytes,
                stats.deadlines,
            ];
            assert_eq!(left, [0; 4], "{stats:?}");
        }
        if stats.queued_bytes == 0 {
            let waits = self.calls.values().any(|call| call.waits);
            assert!(!waits, "{:?}", self.calls);
        }
        if self.conn.end_reason().is_some() {
            assert_eq!(self.conn.poll_timeout(), None);
            assert!(!self.conn.wants_transmit() && self.conn.wants_input());
        } else if !self.conn.wants_input() {
            assert!(self.conn.poll_timeout().is_some(), "a pause ends");
        }
    }

    /// How much may be unread, in bytes.
    fn most_unread(&self) -> usize {
        let s = &self.setup;
        let stats = self.conn.stats();
        match (self.peer.windowed, self.peer.zero) {
            // The pause of revision zero is heeded by two joined ends only.
            (false, _) if s.pair => s.mark + s.chunk + stats.spare_used,
            (_, false) if !s.overcommit => stats.streams * s.window as usize + stats.spare_used,
            (_, _) if s.overcommit => s.cap,
            _ => s.cap + self.fed_unwindowed,
        }
    }

    /// The tunnel ends, the application reads what is left, and then nothing is.
    pub(crate) fn finish(&mut self) {
        self.transmit(usize::MAX);
        self.drain_events();
        self.check();
        self.conn.close();
        self.drain_events();
        self.check();
        self.read_all();
        self.check();
        let stats = self.conn.stats();
        assert_eq!((stats.streams, stats.pending_refusals), (0, 0), "{stats:?}");
        let over = self.calls.values().all(|call| call.over);
        assert!(over, "{:?}", self.calls);
    }
}
