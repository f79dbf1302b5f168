//! Two ends, joined by a pipe that keeps the order. Both behave, so every call must end as its
//! applications ended it, and nothing may be left behind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tunnel_core::{OpenError, Read, Side};

use super::super::Input;
use super::end::{CLOSED, End};
use super::frames::metadata;
use super::op;
use super::setup::Setup;

pub(crate) struct Pair {
    caller: End,
    handler: End,
    /// Calls that may end otherwise than by their applications: by a cancel, a deadline, a drain
    /// or a tight limit.
    disturbed: BTreeSet<i64>,
}

impl Pair {
    pub(crate) fn new(setup: &Setup) -> Self {
        let now = Instant::now();
        let end = |side| {
            let mut setup = setup.clone();
            setup.side = side;
            End::new(setup, now)
        };
        let mut pair = Self {
            caller: end(Side::Caller),
            handler: end(Side::Handler),
            disturbed: BTreeSet::new(),
        };
        pair.pump();
        assert!(pair.caller.conn.is_ready() && pair.handler.conn.is_ready());
        pair
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Caller => &mut self.caller,
            Side::Handler => &mut self.handler,
        }
    }

    pub(crate) fn apply(&mut self, input: &mut Input<'_>) {
        let byte = input.u8();
        let side = match byte >> 7 {
            0 => Side::Caller,
            _ => Side::Handler,
        };
        match (byte & 0x7f) % op::COUNT {
            op::OPEN => self.open(input.u8()),
            op::HEADERS => self.handler.apply(op::HEADERS, input),
            op::READ => {
                let call = self.end(side).choose(input);
                self.read(side, call, 1 + input.below(4));
            }
            op::READ_ALL => {
                let ids: Vec<_> = self.end(side).calls.keys().copied().collect();
                for id in ids {
                    self.read(side, Some(id), usize::MAX);
                }
            }
            op::ABANDON => {
                if side == Side::Caller {
                    let call = self.caller.choose(&mut input.clone());
                    self.disturbed.extend(call);
                }
                self.end(side).apply(op::ABANDON, input);
            }
            op::DRAIN => {
                self.end(side).apply(op::DRAIN, input);
                self.disturbed.extend(self.caller.calls.keys());
            }
            op::PASS => self.pass(Duration::from_millis(input.u8().into())),
            op::CARRY => self.carry(side, input.u8().into()),
            op::PUMP => self.pump(),
            code => self.end(side).apply(code, input),
        }
        self.events();
    }

    fn is_drained(&self) -> bool {
        self.caller.drained || self.handler.drained
    }

    fn open(&mut self, headers: u8) {
        let headers = metadata(headers, self.caller.setup.metadata);
        let timeout = headers.get("grpc-timeout").is_some();
        match self.caller.open(headers) {
            Ok(id) => {
                if timeout || self.caller.setup.tight || self.is_drained() {
                    self.disturbed.insert(id);
                }
            }
            Err(OpenError::StreamLimit(_) | OpenError::MetadataSize { .. }) => {}
            Err(OpenError::DeadlineExceeded) => assert!(timeout),
            Err(OpenError::Draining | OpenError::Ended(_)) => assert!(self.is_drained()),
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self, side: Side, call: Option<i64>, times: usize) {
        let read = self.end(side).read(call, times);
        let Some((id, read)) = call.zip(read) else {
            return;
        };
        let [at_caller, at_handler] = [&self.caller, &self.handler].map(|end| end.calls.get(&id));
        match (side, read) {
            (Side::Handler, Read::HalfClosed) => {
                let (at_caller, at_handler) = at_caller.zip(at_handler).expect("both know it");
                assert!(at_caller.finished.is_some(), "nobody has finished");
                assert!(at_handler.has_read(at_caller.messages, at_caller.given));
            }
            (Side::Caller, Read::Closed(close)) => {
                let ended = at_handler.map(|call| (call.finished, call.reset));
                let (finished, reset) = ended.unwrap_or_default();
                let code = Some(close.status.code);
                if code == finished && (reset.is_none() || close.status.message == CLOSED) {
                    let (at_caller, at_handler) = at_caller.zip(at_handler).expect("both know it");
                    assert!(at_caller.has_read(at_handler.messages, at_handler.given));
                } else if code != reset {
                    self.fails(id, &close);
                }
            }
            (_, Read::Failed(error)) => self.fails(id, &error),
            _ => {}
        }
    }

    /// A call has failed that its applications did not end.
    fn fails(&self, id: i64, why: &dyn std::fmt::Debug) {
        assert!(self.disturbed.contains(&id), "call {id} failed: {why:?}");
    }

    fn carry(&mut self, from: Side, count: usize) {
        for _ in 0..count {
            if !self.end(from.peer()).conn.wants_input() {
                break;
            }
            let Some(frame) = self.end(from).pipe.pop_front() else {
                break;
            };
            if let Err(error) = self.end(from.peer()).feed(frame) {
                panic!("the tunnel ended: {error}");
            }
            self.events();
        }
        // The end of a tunnel follows its last frame.
        let end = self.end(from);
        if end.conn.end_reason().is_some() && end.pipe.is_empty() {
            self.end(from.peer()).conn.handle_end();
            self.events();
        }
    }

    /// Both write and receive until nothing moves.
    fn pump(&mut self) {
        for _ in 0..1_000_000 {
            let mut moved = false;
            for side in [Side::Caller, Side::Handler] {
                self.end(side).transmit(usize::MAX);
                let before = self.end(side).pipe.len();
                self.carry(side, usize::MAX);
                moved |= before > self.end(side).pipe.len();
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.caller.pass(time);
        self.handler.pass(time);
    }

    fn events(&mut self) {
        assert!(self.caller.drain_events().is_empty());
        for id in self.handler.drain_events() {
            self.fails(id, &"at the handler");
        }
    }

    pub(crate) fn check(&self) {
        self.caller.check();
        self.handler.check();
    }

    fn is_readable(&self) -> bool {
        let mut ends = [&self.caller, &self.handler].into_iter();
        ends.any(|end| end.calls.values().any(|call| call.is_readable()))
    }

    /// With tight memory, large messages may pause revision zero until a timeout ends one of them.
    fn resolve_stall(&mut self) {
        let stalled = |p: &Self| !(p.caller.conn.wants_input() && p.handler.conn.wants_input());
        while !self.is_readable() && stalled(self) {
            assert!(self.caller.setup.is_zero() && self.caller.setup.tight);
            self.pass(Duration::from_secs(30));
            self.events();
            self.pump();
        }
    }

    /// Both ends complete what they began and read what there is, until every call is over. They
    /// read each call once, and from then on only after an event.
    pub(crate) fn finish(&mut self) {
        let calls: Vec<_> = self.caller.calls.keys().copied().collect();
        for &id in &calls {
            self.caller.complete(id);
            self.handler.complete(id);
            self.caller.finish_sending(Some(id), 0, metadata(0, 0));
        }
        self.pump();
        let mut first = true;
        while first || self.is_readable() {
            for &id in &calls {
                self.read_on(Side::Caller, id, first);
                self.read_on(Side::Handler, id, first);
            }
            first = false;
            self.pump();
            self.check();
            self.resolve_stall();
        }
        for end in [&self.caller, &self.handler] {
            for call in end.calls.values() {
                assert!(!call.waits, "waits for ever: {call:?}");
                let ended =
                    call.over || (call.finished.is_some() && end.setup.side == Side::Handler);
                assert!(ended, "no end: {call:?}");
            }
        }
        // A drained tunnel may wait for calls that are under way.
        self.pass(Duration::from_secs(1));
        for end in [&self.caller, &self.handler] {
            let stats = end.conn.stats();
            assert_eq!((stats.streams, stats.pending_refusals), (0, 0), "{stats:?}");
            assert!(!end.conn.wants_transmit() && end.conn.wants_input());
            assert_eq!(end.conn.poll_timeout(), None);
        }
        self.events();
        self.caller.finish();
        self.handler.finish();
    }

    /// Reads a call that has an event, or any. A handler closes what was half-closed.
    fn read_on(&mut self, side: Side, id: i64, any: bool) {
        let Some(call) = self.end(side).calls.get(&id) else {
            return;
        };
        if any || call.is_readable() {
            self.read(side, Some(id), usize::MAX);
        }
        let end = self.end(side);
        if side == Side::Handler && end.calls[&id].half_closed {
            end.complete(id);
            end.finish_sending(Some(id), 0, metadata(0, 0));
        }
        self.events();
    }
}
