//! One end, its application and its peer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tunnel_core::frame::Settings;
use tunnel_core::frame::codec::decode;
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::{
    Code, Connection, ConnectionError, EndReason, Event, Frame, FrameKind, FrameRef, FrameSink,
    Metadata, OpenError, Side, Status, StreamId,
};

use super::super::Input;
use super::app::Call;
use super::peer::Peer;
use super::setup::Setup;
use super::{PAYLOAD, bytes, frames, op};

/// Carries each frame to the peer as a byte stream would.
struct Wire<'a> {
    from: Side,
    peer: &'a mut Peer,
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
            .expect("we read what we write");
        self.peer.hears(&frame.expect("one frame"), self.drained);
        assert!(!deframer.is_mid_frame());
        len
    }
}

pub(crate) struct Model {
    setup: Setup,
    conn: Connection,
    now: Instant,
    peer: Peer,
    calls: BTreeMap<i64, Call>,
    /// Payload that has come, and that was given.
    fed: usize,
    given: usize,
    /// What of it came on streams without windows.
    fed_unwindowed: usize,
    events: Events,
    drained: bool,
}

/// Events that come at most once.
#[derive(Debug, Default)]
struct Events {
    ready: bool,
    going_away: bool,
    ended: bool,
    opened: Option<StreamId>,
}

impl Model {
    /// A tunnel whose outer call is open, and, at a caller that negotiates, with settings.
    pub(crate) fn new(setup: Setup, input: &mut Input<'_>) -> Self {
        let mut model = Self {
            conn: Connection::new(setup.side, setup.config()),
            now: Instant::now(),
            peer: Peer::new(setup.clone()),
            calls: BTreeMap::new(),
            fed: 0,
            given: 0,
            fed_unwindowed: 0,
            events: Events::default(),
            drained: false,
            setup,
        };
        model.conn.start(model.now, model.setup.offer);
        if model.setup.side == Side::Caller && model.setup.offer.negotiate {
            let revisions: &[i32] = input.pick(&[&[0, 1][..], &[1], &[0], &[], &[5]]);
            let settings = Settings {
                revisions: revisions.to_vec(),
                initial_window: input.pick(&[65_536, 0, 1, 100, u32::MAX]),
            };
            model.feed(Frame {
                stream_id: StreamId::CONTROL,
                kind: FrameKind::Settings(settings),
            });
        }
        model.drain_events();
        model
    }

    pub(crate) fn apply(&mut self, input: &mut Input<'_>) {
        let limit = self.setup.metadata;
        match input.u8() % op::COUNT {
            op::RAW => {
                let len = input.u16().into();
                let bytes = Bytes::copy_from_slice(input.take(len));
                if let Ok(frame) = decode(self.setup.side.peer(), bytes) {
                    self.feed(frame);
                }
            }
            op::FRAME => {
                let frame = frames::frame(self.setup.side, limit, &self.peer, input);
                self.feed(frame);
            }
            op::OPEN => self.open(frames::metadata(input.u8(), limit)),
            code @ (op::MESSAGE | op::BEGIN | op::WRITE) => {
                let call = self.choose(input);
                self.write(code, call, input.u16().into());
            }
            op::FINISH => {
                let call = self.choose(input);
                let (code, trailers) = match self.setup.side {
                    Side::Caller => (0, 0),
                    Side::Handler => (input.u8(), input.u8()),
                };
                self.finish_sending(call, code, frames::metadata(trailers, limit));
            }
            op::HEADERS => {
                let call = self.choose(input);
                let md = frames::metadata(input.u8(), limit);
                self.with(call, |conn, call| {
                    drop(conn.send_stream(call.id).headers(md))
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
                let code = match self.setup.side {
                    Side::Caller => 0,
                    Side::Handler => input.u8(),
                };
                self.abandon(call, code);
            }
            op::TRANSMIT => {
                let budget = match input.u8() {
                    255 => usize::MAX,
                    n => usize::from(n) * 8,
                };
                self.transmit(budget);
            }
            op::PASS => {
                let millis = input.u8().into();
                self.pass(Duration::from_millis(millis));
            }
            op::DRAIN => {
                let millis = input.u8();
                let deadline = self.now + Duration::from_millis(u64::from(millis));
                self.conn.drain(self.now, (millis > 0).then_some(deadline));
                self.drained = true;
            }
            op::END => self.end(input.u8()),
            op::WRITABLE => {
                let call = self.choose(input);
                self.with(call, |conn, call| {
                    match conn.send_stream(call.id).is_writable() {
                        Ok(writable) => call.waits = !writable,
                        Err(_) => call.waits = false,
                    }
                });
            }
            _ => unreachable!("there are no more"),
        }
        self.drain_events();
    }

    fn choose(&self, input: &mut Input<'_>) -> Option<i64> {
        let choice = input.u8();
        let at = usize::from(choice) % self.calls.len().max(1);
        self.calls.keys().rev().nth(at).copied()
    }

    fn with(&mut self, call: Option<i64>, act: impl FnOnce(&mut Connection, &mut Call)) {
        if let Some(call) = call.and_then(|id| self.calls.get_mut(&id)) {
            act(&mut self.conn, call);
        }
    }

    fn open(&mut self, headers: Metadata) {
        let before = self.conn.stats();
        match self.conn.open(self.now, "/a/b", headers) {
            Ok(id) => {
                assert_eq!(self.setup.side, Side::Caller);
                let last = self.calls.last_key_value();
                assert!(last.is_none_or(|(last, _)| *last < id.value()));
                self.calls.insert(id.value(), Call::new(id));
            }
            Err(error) => {
                assert_eq!(self.conn.stats(), before);
                let ended = matches!(error, OpenError::Ended(_));
                let caller = self.setup.side == Side::Caller;
                assert_eq!(ended, caller && self.conn.end_reason().is_some());
            }
        }
    }

    fn write(&mut self, code: u8, call: Option<i64>, len: usize) {
        let room = PAYLOAD.saturating_sub(self.given);
        let mut wrote = 0;
        self.with(call, |conn, call| {
            let len = match code {
                // Half of the time what is missing, or as much as fits it.
                op::WRITE if len.is_multiple_of(2) => call.unwritten.min(len / 2),
                _ => len,
            };
            let len = len.min(room);
            let data = bytes(call.id.value(), call.given, len);
            let mut send = conn.send_stream(call.id);
            let done = match code {
                op::MESSAGE => send.message(data),
                op::BEGIN => send.begin_message(len as u32),
                _ => send.write(data),
            };
            match (code, done) {
                (_, Err(_)) => {}
                (op::BEGIN, Ok(())) => call.unwritten = len,
                (op::MESSAGE, Ok(())) => wrote = len,
                (_, Ok(())) => {
                    assert!(len <= call.unwritten, "no more than was begun");
                    call.unwritten -= len;
                    wrote = len;
                }
            }
            call.given += wrote;
        });
        self.given += wrote;
    }

    fn finish_sending(&mut self, call: Option<i64>, code: u8, trailers: Metadata) {
        let status = Status::new(Code::from_wire((code % 32).into()), "the end");
        self.with(call, |conn, call| {
            let side = conn.side();
            let mut send = conn.send_stream(call.id);
            let done = match side {
                Side::Caller => send.finish(),
                Side::Handler => send.close(trailers, status),
            };
            if done.is_ok() {
                assert_eq!(call.unwritten, 0);
                call.closed = side == Side::Handler;
            }
        });
    }

    fn abandon(&mut self, call: Option<i64>, code: u8) {
        let status = Status::new(Code::from_wire((code % 32).into()), "reset");
        self.with(call, |conn, call| {
            match conn.side() {
                Side::Caller => conn.cancel(call.id),
                Side::Handler => conn.reset(call.id, status),
            }
            call.end();
        });
    }

    fn read(&mut self, call: Option<i64>, times: usize) {
        let side = self.setup.side;
        self.with(call, |conn, call| {
            for _ in 0..times {
                let read = conn.recv_stream(call.id).read();
                if !call.takes(side, read) {
                    break;
                }
            }
        });
    }

    fn read_all(&mut self) {
        let ids: Vec<_> = self.calls.keys().copied().collect();
        for id in ids {
            self.read(Some(id), usize::MAX);
            self.drain_events();
        }
    }

    /// The peer says something.
    fn feed(&mut self, mut frame: Frame) {
        let id = frame.stream_id.value();
        if let FrameKind::Message { data, .. } | FrameKind::MoreData(data) = &mut frame.kind {
            let len = data.len().min(PAYLOAD.saturating_sub(self.fed));
            self.fed += len;
            self.fed_unwindowed += if self.peer.is_windowed(id) { 0 } else { len };
            let from = self.calls.get(&id).map_or(0, |call| call.fed);
            *data = bytes(id, from, len);
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.is_fed(&frame.kind);
        }
        self.peer.says(&frame);
        let ended = self.conn.end_reason().is_some();
        match self.conn.handle_frame(self.now, frame) {
            Ok(()) => {}
            Err(error) => {
                assert!(!ended, "after the end all is ignored");
                let reason = EndReason::Error(error);
                assert_eq!(self.conn.end_reason(), Some(&reason));
            }
        }
        self.check_timers();
    }

    fn transmit(&mut self, budget: usize) {
        let mut wire = Wire {
            from: self.setup.side,
            peer: &mut self.peer,
            drained: self.drained,
        };
        let wrote = self.conn.transmit(self.now, budget, &mut wire);
        assert!(wrote == 0 || budget > 0);
        assert!(budget < usize::MAX || !self.conn.wants_transmit());
        self.check_timers();
        if budget == usize::MAX && !self.peer.windowed && self.conn.is_ready() {
            assert_eq!(self.conn.stats().queued_bytes, 0, "nothing holds it back");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.conn.handle_timeout(self.now);
        self.check_timers();
    }

    /// Behind anything that knows the time.
    fn check_timers(&self) {
        let next = self.conn.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now), "due, and nothing done");
    }

    fn end(&mut self, choice: u8) {
        match choice {
            255 => self.conn.close(),
            254 => self.conn.close_with(Status::new(Code::Aborted, "w")),
            253 => self.conn.handle_end(),
            252 => {
                let error =
                    ConnectionError::TransportLost(tunnel_core::TransportCause::Other.into());
                self.conn.handle_lost(error);
            }
            _ => {}
        }
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            assert!(!self.events.ended, "behind the last event: {event:?}");
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
                    assert!(!call.is_over(), "over twice");
                    call.end();
                    self.conn.handler_done(id);
                }
                Event::Note(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.events.ended, self.conn.end_reason().is_some());
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
        // The pause of reading at the limit, which this transport does not heed, adds calls.
        assert!(stats.cancelled_handlers + stats.streams - stats.waiting_calls <= s.streams);
        assert_eq!(stats.bytes_sent, self.peer.received as u64);
        assert!(stats.bytes_received <= self.fed as u64);
        assert!(stats.unread_bytes <= self.fed, "{stats:?}");
        assert!(stats.spare_used <= s.spare(), "{stats:?}");
        // Revision zero pauses the transport, which this one does not heed.
        let most = s.cap + if s.overcommit { 0 } else { self.fed_unwindowed };
        assert!(stats.unread_bytes <= most, "{stats:?}");
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
            assert!(
                self.calls.values().all(|call| !call.waits),
                "{:?}",
                self.calls
            );
        }
        for call in self.calls.values() {
            // What messages cost where both ends count them.
            let counted = 5 * call.begun;
            self.peer
                .check_granted(call.id.value(), call.read + counted);
        }
        if self.conn.end_reason().is_some() {
            assert_eq!(self.conn.poll_timeout(), None);
            assert!(!self.conn.wants_transmit() && self.conn.wants_input());
        } else if !self.conn.wants_input() {
            assert!(self.conn.poll_timeout().is_some(), "a pause ends");
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
        assert!(self.calls.values().all(Call::is_over), "{:?}", self.calls);
    }
}
