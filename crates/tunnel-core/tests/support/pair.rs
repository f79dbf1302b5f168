//! Two ends of a tunnel, joined by pipes that keep the order, in virtual time. Nothing moves by
//! itself: the test decides which end writes with which budget, how many frames arrive, and when
//! time passes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tunnel_core::{Config, Connection, Event, Frame, Metadata, Offer, Read, Side, StreamId};

use super::reader::Reader;
use super::{Written, opened};
use super::{offer, quiet};

/// One end, and the pipe from it to the other.
pub(crate) struct End {
    pub(crate) conn: Connection,
    /// The frames it has written since the log was last taken.
    pub(crate) log: Vec<Frame>,
    /// The frames it has written and the peer has not received.
    pub(crate) pipe: VecDeque<Frame>,
}

impl End {
    fn new(side: Side, config: Config) -> Self {
        Self {
            conn: Connection::new(side, config),
            log: Vec::new(),
            pipe: VecDeque::new(),
        }
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.conn.poll_event()).collect()
    }

    pub(crate) fn take_log(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.log)
    }
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) caller: End,
    pub(crate) handler: End,
}

impl Pair {
    /// A tunnel with one configuration at both ends, ready for calls.
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config.clone(), config)
    }

    pub(crate) fn with(caller: Config, handler: Config) -> Self {
        Self::with_offers(caller, handler, offer(), offer())
    }

    /// The offers are those of the caller and of the handler.
    pub(crate) fn with_offers(
        caller: Config,
        handler: Config,
        callers: Offer,
        handlers: Offer,
    ) -> Self {
        let caller = quiet(caller, handlers);
        let handler = quiet(handler, callers);
        let mut pair = Self::unopened(caller, handler);
        pair.start(callers, handlers);
        pair.pump();
        assert!(pair.caller.events().contains(&Event::Ready));
        assert!(pair.handler.events().contains(&Event::Ready));
        pair.caller.take_log();
        pair.handler.take_log();
        pair
    }

    pub(crate) fn unopened(caller: Config, handler: Config) -> Self {
        Self {
            now: Instant::now(),
            caller: End::new(Side::Caller, caller),
            handler: End::new(Side::Handler, handler),
        }
    }

    pub(crate) fn start(&mut self, callers: Offer, handlers: Offer) {
        self.caller.conn.start(self.now, handlers);
        self.handler.conn.start(self.now, callers);
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Caller => &mut self.caller,
            Side::Handler => &mut self.handler,
        }
    }

    /// Lets one side write frames for a budget; returns their number.
    pub(crate) fn write(&mut self, side: Side, budget: usize) -> usize {
        let now = self.now;
        let end = self.end(side);
        let mut written = Written::default();
        end.conn.transmit(now, budget, &mut written);
        let count = written.0.len();
        end.log.extend(written.0.iter().cloned());
        end.pipe.extend(written.0);
        count
    }

    /// Delivers at most `count` frames from one side to the other, as long as the other reads;
    /// returns the last.
    #[track_caller]
    pub(crate) fn carry(&mut self, from: Side, count: usize) -> Option<Frame> {
        let now = self.now;
        let mut last = None;
        for _ in 0..count {
            if !self.end(from.peer()).conn.wants_input() {
                break;
            }
            let Some(frame) = self.end(from).pipe.pop_front() else {
                break;
            };
            last = Some(frame.clone());
            let to = &mut self.end(from.peer()).conn;
            if let Err(error) = to.handle_frame(now, frame) {
                panic!("one of our ends ended the tunnel to the other: {error}, by {last:?}");
            }
        }
        last
    }

    /// One side writes all it can, and the other receives it.
    #[track_caller]
    pub(crate) fn flush(&mut self, from: Side) {
        self.write(from, usize::MAX);
        self.carry(from, usize::MAX);
    }

    /// Lets both write and receive until nothing moves.
    #[track_caller]
    pub(crate) fn pump(&mut self) {
        for _ in 0..100_000 {
            self.flush(Side::Caller);
            self.flush(Side::Handler);
            if !self.moves() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn moves(&self) -> bool {
        let moves = |from: &End, to: &End| {
            from.conn.wants_transmit() || (!from.pipe.is_empty() && to.conn.wants_input())
        };
        moves(&self.caller, &self.handler) || moves(&self.handler, &self.caller)
    }

    /// Moves everything, and reads one stream at one end until it has this many whole messages.
    #[track_caller]
    pub(crate) fn read_until(&mut self, at: Side, reader: &mut Reader, messages: usize) {
        for _ in 0..10_000 {
            self.pump();
            let read = reader.read_all(&mut self.end(at).conn);
            if reader.messages.len() >= messages {
                self.pump();
                return;
            }
            assert_eq!(read, Read::Pending, "{} are whole", reader.messages.len());
        }
        panic!(
            "{} messages are whole, and no more come",
            reader.messages.len()
        );
    }

    /// Lets time pass at both ends.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.caller.conn.handle_timeout(self.now);
        self.handler.conn.handle_timeout(self.now);
    }

    #[track_caller]
    pub(crate) fn open(&mut self) -> StreamId {
        self.open_with(Metadata::new())
    }

    #[track_caller]
    pub(crate) fn open_with(&mut self, headers: Metadata) -> StreamId {
        self.caller
            .conn
            .open(self.now, "/test.Echo/Say", headers)
            .expect("a call can be opened")
    }

    /// Opens a call and delivers it to the handler; nothing is left unsent.
    #[track_caller]
    pub(crate) fn call(&mut self) -> StreamId {
        let id = self.open();
        self.pump();
        assert_eq!(opened(&self.handler.events()), [id]);
        self.caller.take_log();
        self.handler.take_log();
        id
    }

    /// Checks that both ends hold nothing.
    #[track_caller]
    pub(crate) fn assert_idle(&self) {
        for end in [&self.caller, &self.handler] {
            let stats = end.conn.stats();
            let held = [
                stats.streams,
                stats.unread_bytes,
                stats.spare_used,
                stats.queued_bytes,
                stats.deadlines,
                stats.pending_refusals,
            ];
            assert_eq!(held, [0; 6], "{:?}: {stats:?}", end.conn.side());
            assert!(!end.conn.wants_transmit());
            assert!(end.conn.wants_input());
        }
        assert_eq!(self.caller.conn.poll_timeout(), None);
        assert_eq!(self.handler.conn.poll_timeout(), None);
    }
}
