//! Two ends, and what must be true of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tunnel_core::{
    Code, Event, Frame, FrameKind, Metadata, Offer, OpenError, Side, Status, WriteError,
};

use crate::call::{CLOSED, Call, Direction, End, RESET};
use crate::ops::{Op, Setup, Size};
use crate::support::build;
use crate::support::pair::Pair;
use crate::support::payload_len;

/// What was said about one direction of one call.
#[derive(Debug, Default)]
struct Flow {
    /// What its sender was granted, and has heard of.
    credit: u64,
    /// What its receiver has granted.
    granted: u64,
    sent: u64,
}

pub(crate) struct Model {
    setup: Setup,
    pair: Pair,
    calls: Vec<Call>,
    /// By the side that sends, and the stream.
    flows: HashMap<(Side, i64), Flow>,
    drained: bool,
    /// Who was told that there is something to read.
    readable: BTreeSet<(i64, Seat)>,
    /// Who was told to wait before writing more.
    waiting: BTreeSet<(i64, Seat)>,
}

impl Model {
    pub(crate) fn new(setup: &Setup, ops: &[Op]) -> Self {
        let empty = |op: &&Op| match op {
            Op::Send { size, .. } | Op::Begin { size, .. } => size.may_be_zero(),
            _ => false,
        };
        let config = setup.config(ops.iter().filter(empty).count());
        let mut offer = Offer::none();
        offer.negotiate = setup.negotiate;
        offer.drain = setup.drain_offered;
        offer.message_credit = setup.message_credit;
        offer.max_streams = setup.announced;
        Self {
            setup: setup.clone(),
            pair: Pair::with_offers(config.clone(), config, offer, offer),
            calls: Vec::new(),
            flows: HashMap::new(),
            drained: false,
            readable: BTreeSet::new(),
            waiting: BTreeSet::new(),
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Open { timeout } => self.open(timeout),
            Op::Send { side, call, size } => {
                self.begin(side, call, size, true);
            }
            Op::Begin { side, call, size } => {
                self.begin(side, call, size, false);
            }
            Op::Write { side, call, len } => self.write(side, call, len),
            Op::Finish { call } => self.finish(call),
            Op::Headers { call } => self.headers(call),
            Op::Close { call } => self.close(call),
            Op::Cancel { call } => self.cancel(call),
            Op::Reset { call } => self.reset(call),
            Op::Read { side, call, times } => self.read(side, call, times),
            Op::AskWritable { side, call } => self.ask_writable(side, call),
            Op::Transmit { side, budget } => self.transmit(side, budget),
            Op::Carry { from, count } => self.carry(from, count),
            Op::Pump => self.pump(),
            Op::Pass { millis } => self.pass(millis),
            Op::Drain { side, deadline } => self.drain(side, deadline),
        }
        self.events();
    }

    /// The call of a number, if there is one and a side knows it.
    fn call(&mut self, side: Side, number: usize) -> Option<(&mut Call, &mut Pair)> {
        let count = self.calls.len().max(1);
        let call = self.calls.get_mut(number % count)?;
        let known = side == Side::Caller || call.opened;
        known.then_some((call, &mut self.pair))
    }

    fn open(&mut self, timeout: Option<&'static str>) {
        let headers = timeout.map(build::timeout).unwrap_or_default();
        match self.pair.caller.conn.open(self.pair.now, "/a/b", headers) {
            Ok(id) => {
                let disturbed = timeout.is_some() || self.setup.tight || self.drained;
                self.calls.push(Call::new(id, disturbed));
            }
            Err(OpenError::StreamLimit(_)) => {}
            Err(OpenError::Draining | OpenError::Ended(_)) => assert!(self.drained),
            Err(error) => panic!("{error}"),
        }
    }

    fn begin(&mut self, side: Side, number: usize, size: Size, whole: bool) -> Option<()> {
        let size = size.bytes(self.setup.window as usize);
        let (call, pair) = self.call(side, number)?;
        let (over, id) = (is_over(call, side), call.id);
        let direction = direction(call, side);
        let mut send = pair.end(side).conn.send_stream(id);
        let expected = direction.unwritten == 0 && !direction.finished;
        if !expected {
            let refused = send.begin_message(size as u32);
            assert!(refused.is_err(), "{refused:?}");
            return None;
        }
        match send.begin_message(size as u32) {
            Ok(()) => assert!(!over),
            // It may have ended without its application having been told yet.
            Err(WriteError::Gone) => return None,
            Err(error) => panic!("{error}"),
        }
        direction.begin(size);
        if whole && size > 0 {
            send.write(direction.content(size)).expect("it has begun");
            direction.wrote(size);
        }
        Some(())
    }

    fn write(&mut self, side: Side, number: usize, len: usize) {
        let Some((call, pair)) = self.call(side, number) else {
            return;
        };
        let id = call.id;
        let direction = direction(call, side);
        let len = len.min(direction.unwritten);
        if len == 0 {
            return;
        }
        match pair
            .end(side)
            .conn
            .send_stream(id)
            .write(direction.content(len))
        {
            Ok(()) => direction.wrote(len),
            Err(WriteError::Gone) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn finish(&mut self, number: usize) {
        let Some((call, pair)) = self.call(Side::Caller, number) else {
            return;
        };
        match pair.caller.conn.send_stream(call.id).finish() {
            Ok(()) => {
                assert!(!call.up.finished && call.up.unwritten == 0);
                call.up.finished = true;
            }
            Err(WriteError::Gone) => {}
            Err(WriteError::Finished) => assert!(call.up.finished),
            Err(WriteError::MessageIncomplete(left)) => {
                assert_eq!(left as usize, call.up.unwritten);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn headers(&mut self, number: usize) {
        if let Some((call, pair)) = self.call(Side::Handler, number) {
            let given = pair
                .handler
                .conn
                .send_stream(call.id)
                .headers(Metadata::new());
            assert!(given.is_err() || !call.headers, "headers go once");
            call.headers |= given.is_ok();
        }
    }

    fn close(&mut self, number: usize) {
        let Some((call, pair)) = self.call(Side::Handler, number) else {
            return;
        };
        let status = Status::new(Code::Ok, CLOSED);
        match pair
            .handler
            .conn
            .send_stream(call.id)
            .close(Metadata::new(), status)
        {
            Ok(()) => {
                assert_eq!((&call.at_handler, call.down.unwritten), (&None, 0));
                call.down.finished = true;
                call.at_handler = Some(End::Closed);
            }
            Err(WriteError::Gone | WriteError::Finished) => {}
            Err(WriteError::MessageIncomplete(left)) => {
                assert_eq!(left as usize, call.down.unwritten);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn cancel(&mut self, number: usize) {
        if let Some((call, pair)) = self.call(Side::Caller, number) {
            pair.caller.conn.cancel(call.id);
            call.disturbed = true;
            call.at_caller.get_or_insert(End::Cancelled);
            let id = call.id.value();
            self.waiting.remove(&(id, seat(Side::Caller)));
        }
    }

    fn reset(&mut self, number: usize) {
        if let Some((call, pair)) = self.call(Side::Handler, number) {
            let status = Status::new(Code::Aborted, RESET);
            pair.handler.conn.reset(call.id, status);
            if matches!(call.at_handler, None | Some(End::Closed)) {
                call.at_handler = Some(End::Reset);
            }
            let id = call.id.value();
            self.waiting.remove(&(id, seat(Side::Handler)));
        }
    }

    fn read(&mut self, side: Side, number: usize, times: usize) {
        let Some((call, pair)) = self.call(side, number) else {
            return;
        };
        for _ in 0..times {
            let read = pair.end(side).conn.recv_stream(call.id).read();
            let more = match side {
                Side::Caller => call.read_at_caller(read),
                Side::Handler => call.read_at_handler(read),
            };
            if !more {
                break;
            }
        }
    }

    fn ask_writable(&mut self, side: Side, number: usize) {
        let Some((call, pair)) = self.call(side, number) else {
            return;
        };
        let id = call.id;
        match pair.end(side).conn.send_stream(id).is_writable() {
            Ok(false) => self.waiting.insert((id.value(), seat(side))),
            Ok(true) | Err(_) => self.waiting.remove(&(id.value(), seat(side))),
        };
    }

    fn transmit(&mut self, side: Side, budget: usize) {
        let now = self.pair.now;
        let conn = &mut self.pair.end(side).conn;
        conn.handle_timeout(now);
        let (wanted, held) = (conn.wants_transmit(), conn.stats().spare_used as u64);
        let written = self.pair.write(side, budget);
        assert!(written == 0 || wanted, "it did not want to");
        for frame in self.pair.end(side).take_log() {
            self.said(side, &frame, held);
        }
    }

    /// Counts what a frame that was written means for windows, where `held` bytes of large
    /// messages were held.
    fn said(&mut self, side: Side, frame: &Frame, held: u64) {
        let id = frame.stream_id.value();
        if self.setup.zero {
            assert!(!matches!(frame.kind, FrameKind::WindowUpdate(_)));
            return;
        }
        match &frame.kind {
            FrameKind::NewStream(new) => {
                let window = u64::from(self.setup.window);
                assert_eq!(u64::from(new.initial_window), window);
                for side in [Side::Caller, Side::Handler] {
                    let flow = self.flows.entry((side, id)).or_default();
                    (flow.credit, flow.granted) = (window, window);
                }
            }
            FrameKind::WindowUpdate(credit) => {
                assert!(*credit > 0);
                let call = self.calls.iter_mut().find(|c| c.id.value() == id);
                let call = call.expect("it was opened");
                let direction = direction(call, side.peer());
                let read = direction.bytes_read as u64;
                let counted = direction.begun_reading() * self.setup.message_cost();
                let most = read + counted + u64::from(self.setup.max_window());
                let flow = self.flows.entry((side.peer(), id)).or_default();
                flow.granted += u64::from(*credit);
                assert!(
                    flow.granted <= most + held,
                    "{flow:?} beyond {most}, held {held}"
                );
            }
            _ => {
                let flow = self.flows.entry((side, id)).or_default();
                let begins = matches!(frame.kind, FrameKind::Message { .. });
                flow.sent += payload_len(frame) as u64;
                flow.sent += u64::from(begins) * self.setup.message_cost();
                assert!(flow.sent <= flow.credit, "a window was exceeded: {flow:?}");
            }
        }
    }

    fn carry(&mut self, from: Side, count: usize) {
        for _ in 0..count {
            let Some(frame) = self.pair.carry(from, 1) else {
                break;
            };
            if let FrameKind::WindowUpdate(credit) = frame.kind {
                let flow = self
                    .flows
                    .entry((from.peer(), frame.stream_id.value()))
                    .or_default();
                flow.credit += u64::from(credit);
            }
            self.events();
        }
        // The end of a tunnel follows its last frame.
        let end = self.pair.end(from);
        if end.conn.end_reason().is_some() && end.pipe.is_empty() {
            self.pair.end(from.peer()).conn.handle_end();
            self.events();
        }
    }

    /// Both write and receive until nothing moves.
    fn pump(&mut self) {
        for _ in 0..100_000 {
            let mut moved = false;
            for side in [Side::Caller, Side::Handler] {
                self.transmit(side, usize::MAX);
                let before = self.pair.end(side).pipe.len();
                self.carry(side, usize::MAX);
                moved |= before > self.pair.end(side).pipe.len();
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn pass(&mut self, millis: u64) {
        self.pair.pass(Duration::from_millis(millis));
        let now = self.pair.now;
        for side in [Side::Caller, Side::Handler] {
            let next = self.pair.end(side).conn.poll_timeout();
            assert!(next.is_none_or(|at| at > now), "what was due has happened");
        }
    }

    fn drain(&mut self, side: Side, deadline: Option<u64>) {
        let now = self.pair.now;
        let deadline = deadline.map(|millis| now + Duration::from_millis(millis));
        self.pair.end(side).conn.drain(now, deadline);
        self.drained = true;
        for call in &mut self.calls {
            call.disturbed = true;
        }
    }

    /// Takes all events.
    fn events(&mut self) {
        for event in self.pair.caller.events() {
            if let Event::Opened { .. } | Event::Cancelled { .. } = event {
                panic!("a caller gets {event:?}");
            }
            self.told(Side::Caller, &event);
        }
        for event in self.pair.handler.events() {
            self.told(Side::Handler, &event);
            match event {
                Event::Opened { id, .. } => {
                    let call = self.calls.iter_mut().find(|c| c.id == id);
                    call.expect("it was opened").opened = true;
                }
                Event::Cancelled { id, error, .. } => {
                    let call = self.calls.iter_mut().find(|c| c.id == id);
                    let call = call.expect("it was opened");
                    assert!(call.opened, "nobody is told of what was never there");
                    self.waiting.remove(&(id.value(), seat(Side::Handler)));
                    call.cancelled_at_handler(error.code);
                    self.pair.handler.conn.handler_done(id);
                }
                _ => {}
            }
        }
    }

    fn told(&mut self, side: Side, event: &Event) {
        match event {
            Event::Readable(id) => {
                self.readable.insert((id.value(), seat(side)));
            }
            Event::Writable(id) => {
                self.waiting.remove(&(id.value(), seat(side)));
            }
            _ => {}
        }
    }

    /// What is true at all times.
    pub(crate) fn check(&mut self) {
        for side in [Side::Caller, Side::Handler] {
            let stats = self.pair.end(side).conn.stats();
            assert!(stats.spare_used <= self.setup.spare(), "{stats:?}");
            let allowed = self.setup.unread_allowed(stats.streams) + stats.spare_used;
            assert!(stats.unread_bytes <= allowed, "{stats:?} over {allowed}");
            assert!(stats.deadlines <= stats.streams);
        }
    }

    /// Where memory is tight, large messages that nobody can hold may stop revision zero until
    /// time ends one of them.
    fn resolve_stall(&mut self) {
        let ends =
            |p: &mut Pair| [Side::Caller, Side::Handler].map(|s| p.end(s).conn.wants_input());
        while self.readable.is_empty() && ends(&mut self.pair) != [true, true] {
            assert!(self.setup.zero && self.setup.tight);
            self.pass(30_000);
            self.pump();
        }
    }

    /// Both ends finish what they have begun and read what there is, until every call is over.
    /// Everybody looks once, and from then on only when told.
    pub(crate) fn finish_all(&mut self) {
        for number in 0..self.calls.len() {
            let id = self.calls[number].id.value();
            for side in [Side::Caller, Side::Handler] {
                self.write(side, number, usize::MAX);
                self.readable.insert((id, seat(side)));
            }
            self.finish(number);
        }
        self.pump();
        while !self.readable.is_empty() {
            for (id, Seat(at_caller)) in std::mem::take(&mut self.readable) {
                let side = if at_caller {
                    Side::Caller
                } else {
                    Side::Handler
                };
                let at = self.calls.iter().position(|c| c.id.value() == id);
                let number = at.expect("it was opened");
                self.read(side, number, usize::MAX);
                if self.calls[number].half_closed {
                    self.write(Side::Handler, number, usize::MAX);
                    self.close(number);
                }
            }
            self.pump();
            self.check();
            self.resolve_stall();
        }
        assert!(
            self.waiting.is_empty(),
            "they wait for ever: {:?}",
            self.waiting
        );
        for call in &self.calls {
            let ended = call
                .at_caller
                .as_ref()
                .expect("every call comes to its end");
            if !call.disturbed {
                assert!(matches!(ended, End::Closed | End::Reset), "{ended:?}");
            }
            assert!(!call.opened || call.at_handler.is_some());
        }
        // A drained tunnel may wait for calls that are under way.
        self.pair.pass(Duration::from_secs(1));
        self.pair.assert_idle();
    }
}

/// A side, for sets that keep an order: whether it is the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seat(bool);

fn seat(side: Side) -> Seat {
    Seat(side == Side::Caller)
}

/// The direction in which a side sends.
fn direction(call: &mut Call, side: Side) -> &mut Direction {
    match side {
        Side::Caller => &mut call.up,
        Side::Handler => &mut call.down,
    }
}

fn is_over(call: &Call, side: Side) -> bool {
    match side {
        Side::Caller => call.at_caller.is_some(),
        Side::Handler => call.at_handler.is_some(),
    }
}
