//! One end of a tunnel whose peer is the test.

use std::time::{Duration, Instant};

use tunnel_core::{
    Config, Connection, ConnectionError, Event, Frame, Metadata, Offer, Side, StreamId,
};

use super::build::{self, WINDOW};
use super::{Written, opened};
use super::{offer, quiet};

pub(crate) struct Lone {
    pub(crate) conn: Connection,
    pub(crate) now: Instant,
}

impl Lone {
    /// A tunnel that is being opened.
    pub(crate) fn unopened(side: Side, config: Config) -> Self {
        Self {
            conn: Connection::new(side, config),
            now: Instant::now(),
        }
    }

    /// An end that is ready and has sent its settings.
    pub(crate) fn new(side: Side, config: Config) -> Self {
        Self::with_offer(side, config, offer())
    }

    pub(crate) fn with_offer(side: Side, config: Config, offer: Offer) -> Self {
        let mut lone = Self::unopened(side, quiet(config, offer));
        lone.conn.start(lone.now, offer);
        if offer.negotiate && side == Side::Caller {
            lone.feed(build::settings(&[0, 1], WINDOW));
        }
        lone.sent();
        assert_eq!(lone.events(), [Event::Ready]);
        lone
    }

    pub(crate) fn handler(config: Config) -> Self {
        Self::new(Side::Handler, config)
    }

    pub(crate) fn caller(config: Config) -> Self {
        Self::new(Side::Caller, config)
    }

    /// Receives a frame that must not end the tunnel.
    #[track_caller]
    pub(crate) fn feed(&mut self, frame: Frame) {
        let shown = format!("{frame:?}");
        if let Err(error) = self.try_feed(frame) {
            panic!("{shown:.200} ended the tunnel: {error}");
        }
        assert_eq!(self.conn.end_reason(), None, "{shown:.200}");
    }

    pub(crate) fn try_feed(&mut self, frame: Frame) -> Result<(), ConnectionError> {
        self.conn.handle_frame(self.now, frame)
    }

    /// Receives a frame that must end the tunnel; returns the error.
    #[track_caller]
    pub(crate) fn feed_fatal(&mut self, frame: Frame) -> ConnectionError {
        let error = self.try_feed(frame).expect_err("it must end the tunnel");
        let events = self.events();
        let ended = Event::Ended(error.clone().into());
        assert_eq!(events.last(), Some(&ended), "it is the last event");
        assert!(!self.conn.wants_transmit());
        assert_eq!(self.conn.poll_timeout(), None);
        error
    }

    /// Takes all frames to send.
    pub(crate) fn sent(&mut self) -> Vec<Frame> {
        let mut written = Written::default();
        self.conn.transmit(self.now, usize::MAX, &mut written);
        assert!(!self.conn.wants_transmit(), "nothing is left");
        written.0
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.conn.poll_event()).collect()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.conn.handle_timeout(self.now);
    }

    /// Handler: receives a call.
    #[track_caller]
    pub(crate) fn accept(&mut self, id: i64) -> StreamId {
        self.accept_frame(build::open(id))
    }

    #[track_caller]
    pub(crate) fn accept_frame(&mut self, frame: Frame) -> StreamId {
        self.feed(frame);
        match opened(&self.events())[..] {
            [id] => id,
            ref other => panic!("one call, not {other:?}"),
        }
    }

    /// Caller: opens a call and sends it.
    #[track_caller]
    pub(crate) fn open(&mut self) -> StreamId {
        let id = self.open_unsent(Metadata::new());
        self.sent();
        id
    }

    #[track_caller]
    pub(crate) fn open_unsent(&mut self, headers: Metadata) -> StreamId {
        self.conn
            .open(self.now, "/test.Echo/Say", headers)
            .expect("a call can be opened")
    }
}
