//! The peer's view of one end: checks what the end sends against the protocol, and knows which
//! streams the peer can name.

use std::collections::BTreeMap;

use tunnel_core::frame::{MAX_CHUNK_SIZE, NewStream};
use tunnel_core::{Frame, FrameKind, Side, StreamId};

use super::app::Call;
use super::check_bytes;
use super::setup::Setup;

/// One stream, as far as it travelled.
#[derive(Debug, Default)]
struct Stream {
    /// Whether it has windows.
    windowed: bool,
    /// What the peer allowed to be sent: the first credit and all window updates.
    credit: u64,
    /// Payload that came, in bytes.
    received: usize,
    /// What the messages that came cost beside their payload.
    cost: usize,
    /// What is missing of the message that began, in bytes.
    missing: usize,
    /// Credit that the peer was given.
    granted: u64,
    headers: bool,
    /// Whether the sender half-closed or closed.
    ended: bool,
    cancelled: bool,
}

#[derive(Debug)]
pub(crate) struct Peer {
    setup: Setup,
    /// Caller under test: the streams it opened. Handler: those it was asked to open.
    streams: BTreeMap<i64, Stream>,
    /// The caller's first credit, by settings.
    first_credit: u64,
    settings: bool,
    going_away: bool,
    /// The streams with window updates since the last check.
    updated: Vec<i64>,
    /// Payload that came on all streams, in bytes.
    pub(crate) received: usize,
    /// Whether any stream has no windows, and whether any has.
    pub(crate) zero: bool,
    pub(crate) windowed: bool,
}

impl Peer {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup,
            streams: BTreeMap::new(),
            first_credit: 0,
            settings: false,
            going_away: false,
            updated: Vec::new(),
            received: 0,
            zero: false,
            windowed: false,
        }
    }

    /// An id to open a stream with: mostly the next, sometimes with a gap, or an old one.
    pub(crate) fn next_id(&self, choice: u8) -> i64 {
        let next = self
            .streams
            .last_key_value()
            .map_or(1, |(id, _)| id.saturating_add(1));
        match choice {
            0..=199 => next,
            200..=249 => next.saturating_add(i64::from(choice) - 199),
            250 => 0,
            251 => i64::MAX,
            252 => -1,
            _ => i64::from(choice) - 252,
        }
    }

    /// An id that was used, or the first.
    pub(crate) fn known_id(&self, choice: usize) -> i64 {
        let count = self.streams.len().max(1);
        let id = self.streams.keys().rev().nth(choice % count);
        id.copied().unwrap_or(1)
    }

    pub(crate) fn is_windowed(&self, id: i64) -> bool {
        self.streams.get(&id).is_some_and(|s| s.windowed)
    }

    /// The peer sends a frame. What it allows counts whether the frame is accepted or not.
    pub(crate) fn sends(&mut self, frame: &Frame) {
        match &frame.kind {
            FrameKind::NewStream(new) => self.asks_to_open(frame.stream_id.value(), new),
            FrameKind::WindowUpdate(credit) => {
                if let Some(stream) = self.streams.get_mut(&frame.stream_id.value()) {
                    stream.credit += u64::from(*credit);
                }
            }
            FrameKind::Settings(settings) if !self.settings => {
                self.settings = true;
                self.first_credit = settings.initial_window.into();
            }
            _ => {}
        }
    }

    fn asks_to_open(&mut self, id: i64, new: &NewStream) {
        let windowed = new.revision == 1;
        self.zero |= !windowed;
        self.windowed |= windowed;
        self.streams.entry(id).or_insert(Stream {
            windowed,
            credit: new.initial_window.into(),
            granted: self.setup.window.into(),
            ..Stream::default()
        });
    }

    /// The peer receives a frame.
    pub(crate) fn receives(&mut self, frame: &Frame, drained: bool) {
        if frame.stream_id == StreamId::CONTROL {
            return self.receives_control(&frame.kind, drained);
        }
        if let FrameKind::NewStream(new) = &frame.kind {
            return self.receives_open(frame.stream_id.value(), new);
        }
        assert!(
            self.setup.side == Side::Caller || self.settings || !self.setup.offer.negotiate,
            "settings come first"
        );
        let Some(stream) = self.streams.get_mut(&frame.stream_id.value()) else {
            panic!("of a stream that was never opened: {frame:?}");
        };
        assert!(!stream.cancelled, "behind a cancel: {frame:?}");
        let handler = self.setup.side == Side::Handler;
        assert!(!handler || !stream.ended, "behind the close: {frame:?}");
        match &frame.kind {
            FrameKind::Message {
                size,
                data,
                compressed,
            } => {
                assert!(
                    !compressed || self.setup.offer.compressed_messages,
                    "only for a peer that accepts it"
                );
                assert!(!handler || stream.headers, "headers come first");
                assert_eq!(stream.missing, 0, "inside another message");
                assert_eq!(
                    *size == 0,
                    data.is_empty(),
                    "a message begins with some of it"
                );
                stream.missing = *size as usize;
                stream.cost += self.setup.message_cost();
                self.received += stream.takes(frame.stream_id.value(), data, &self.setup);
            }
            FrameKind::MoreData(data) => {
                assert!(!data.is_empty(), "a piece of nothing");
                self.received += stream.takes(frame.stream_id.value(), data, &self.setup);
            }
            FrameKind::HalfClose => {
                assert_eq!(stream.missing, 0, "the last message is whole");
                assert!(!stream.ended, "once");
                stream.ended = true;
            }
            FrameKind::Cancel => stream.cancelled = true,
            FrameKind::WindowUpdate(credit) => {
                assert!(stream.windowed, "revision zero has no windows");
                assert!(*credit > 0, "an update of nothing");
                stream.granted += u64::from(*credit);
                self.updated.push(frame.stream_id.value());
            }
            FrameKind::Headers(md) => {
                assert!(!stream.headers, "headers come once");
                assert!(md.size() <= self.setup.metadata);
                stream.headers = true;
            }
            FrameKind::Close(_) => stream.ended = true,
            kind => panic!("{kind:?}"),
        }
    }

    fn receives_control(&mut self, kind: &FrameKind, drained: bool) {
        match (kind, self.setup.side) {
            (FrameKind::Settings(settings), Side::Handler) => {
                assert!(!self.settings && self.setup.offer.negotiate);
                assert_eq!(settings.initial_window, self.setup.window);
                self.settings = true;
            }
            (FrameKind::Close(_), Side::Handler) | (FrameKind::HalfClose, Side::Caller) => {
                assert!(drained && self.setup.offer.negotiate && self.setup.offer.drain);
                assert!(!self.going_away, "said once");
                self.going_away = true;
            }
            other => panic!("{other:?}"),
        }
    }

    fn receives_open(&mut self, id: i64, new: &NewStream) {
        assert_eq!(self.setup.side, Side::Caller);
        let highest = self.streams.last_key_value().map_or(0, |(id, _)| *id);
        assert!(id > highest, "ids increase");
        assert!(new.method.len() > 1 && new.method.starts_with('/'));
        assert!(new.headers.size() + new.method.len() <= self.setup.metadata + 1);
        let windowed = new.revision == 1;
        assert!(!windowed || (self.setup.offer.negotiate && self.settings));
        assert_eq!(
            new.initial_window,
            if windowed { self.setup.window } else { 0 }
        );
        self.zero |= !windowed;
        self.windowed |= windowed;
        let stream = Stream {
            windowed,
            credit: self.first_credit,
            granted: new.initial_window.into(),
            ..Stream::default()
        };
        self.streams.insert(id, stream);
    }

    /// Checks the last window updates: credit never exceeds what was read, the largest window, and
    /// what was held back of large messages before.
    pub(crate) fn check_granted(&mut self, calls: &BTreeMap<i64, Call>, held: usize) {
        let cost = self.setup.message_cost();
        for id in self.updated.drain(..) {
            let read = calls
                .get(&id)
                .map_or(0, |call| call.read + cost * call.begun);
            let most = read + self.setup.max_window as usize + held;
            let granted = self.streams[&id].granted;
            assert!(granted <= most as u64, "stream {id}: {granted} over {most}");
        }
    }
}

impl Stream {
    fn takes(&mut self, id: i64, data: &[u8], setup: &Setup) -> usize {
        assert!(!self.ended, "behind the half-close");
        assert!(data.len() <= setup.chunk.min(MAX_CHUNK_SIZE));
        assert!(data.len() <= self.missing, "more than was declared");
        check_bytes(setup.side, id, self.received, data);
        self.missing -= data.len();
        self.received += data.len();
        assert!(
            !self.windowed || (self.received + self.cost) as u64 <= self.credit,
            "stream {id}: beyond its window: {self:?}"
        );
        data.len()
    }
}
