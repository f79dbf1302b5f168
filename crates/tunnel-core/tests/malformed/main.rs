//! Malformed peer input never panics, and ends only the stream or tunnel that it must.
//!
//! The peer is the test, and every frame is made by hand. Each tunnel has a second stream, which
//! must go on.

#[path = "../support/mod.rs"]
mod support;

mod at_caller;
mod at_handler;
mod late;
mod limits;
mod memory;
mod peers;
mod tunnel;

use bytes::Bytes;
use support::build;
use support::lone::Lone;
use support::reader::read_all;
use tunnel_core::{
    Code, Config, Event, Frame, FrameKind, Offer, Read, Side, StreamError, StreamFault, StreamId,
};

fn offer_without_compression() -> Offer {
    let mut offer = support::offer();
    offer.compressed_messages = false;
    offer
}

/// One end with a bystander: a stream that must not be affected.
struct Tunnel {
    lone: Lone,
    bystander: StreamId,
}

impl Tunnel {
    fn handler(config: Config) -> Self {
        let mut lone = Lone::handler(config);
        let bystander = lone.accept(1);
        Self { lone, bystander }
    }

    fn caller(config: Config) -> Self {
        let mut lone = Lone::caller(config);
        let bystander = lone.open();
        Self { lone, bystander }
    }

    fn of(side: Side, peer: Offer) -> Self {
        let mut lone = Lone::with_offer(side, Config::default(), peer);
        let bystander = match side {
            Side::Caller => lone.open(),
            Side::Handler => lone.accept(1),
        };
        Self { lone, bystander }
    }

    /// The next call at a handler.
    #[track_caller]
    fn accept(&mut self) -> StreamId {
        let id = self.lone.conn.stats().streams_total as i64 + 1;
        self.lone.accept(1000 + id)
    }

    /// Checks that the bystander can receive and send, and that the tunnel takes new calls.
    #[track_caller]
    fn assert_goes_on(&mut self) {
        let id = self.bystander;
        self.lone.events();
        self.lone.sent();
        self.lone.feed(build::message(id.value(), "all is well"));
        let (messages, end) = read_all(&mut self.lone.conn, id);
        assert_eq!(messages, [b"all is well"]);
        assert_eq!(end, Read::Pending);
        self.lone
            .conn
            .send_stream(id)
            .message("so it is".into())
            .expect("it can be sent");
        let said = self.lone.sent();
        let is_answer = |f: &Frame| {
            let data = Bytes::from("so it is");
            *f == build::message(id.value(), data)
        };
        assert!(said.iter().any(is_answer), "{said:?}");
        match self.lone.conn.side() {
            Side::Handler => {
                let id = self.accept();
                self.lone.conn.reset(id, tunnel_core::Status::OK);
            }
            Side::Caller => {
                let id = self.lone.open();
                self.lone.conn.cancel(id);
            }
        }
        self.lone.sent();
        self.lone.events();
    }

    /// Checks that a frame ends one stream by a fault of the peer: the application and the peer get
    /// the error, and no other stream is affected.
    #[track_caller]
    fn assert_fault(&mut self, id: StreamId, frame: Frame, fault: &StreamFault) -> StreamError {
        let streams = self.lone.conn.active_streams();
        self.lone.feed(frame);
        let side = self.lone.conn.side();
        let error = match side {
            Side::Handler => self.cancelled(id),
            Side::Caller => self.failed(id),
        };
        assert_eq!(error.code, fault.code(side));
        assert_eq!(error.message, fault.to_string());
        assert!(!error.not_processed);
        let told = self.lone.sent();
        let told = told.iter().find(|f| f.stream_id == id).map(|f| &f.kind);
        match (side, told) {
            (Side::Caller, Some(FrameKind::Cancel)) => {}
            (Side::Handler, Some(FrameKind::Close(close))) => {
                assert_eq!(close.status, error.to_status());
            }
            (_, told) => panic!("the peer is told {told:?}"),
        }
        assert_eq!(self.lone.conn.active_streams(), streams - 1);
        assert_eq!(self.lone.conn.recv_stream(id).read(), Read::Gone);
        self.assert_goes_on();
        error
    }

    /// Handler: the error of the one stream that was just cancelled.
    #[track_caller]
    fn cancelled(&mut self, id: StreamId) -> StreamError {
        let events = self.lone.events();
        let mut cancelled = events.iter().filter_map(|e| match e {
            Event::Cancelled { id, error, .. } => Some((*id, error.clone())),
            _ => None,
        });
        let (of, error) = cancelled
            .next()
            .unwrap_or_else(|| panic!("none: {events:?}"));
        assert_eq!((of, cancelled.next()), (id, None));
        error
    }

    /// Caller: the error of a failed stream, after its data.
    #[track_caller]
    fn failed(&mut self, id: StreamId) -> StreamError {
        loop {
            match self.lone.conn.recv_stream(id).read() {
                Read::Data(_) => {}
                Read::Failed(error) => return error,
                read => panic!("{read:?}"),
            }
        }
    }

    /// Checks that a frame is ignored.
    #[track_caller]
    fn assert_ignored(&mut self, frame: Frame) {
        let before = self.lone.conn.stats();
        self.lone.feed(frame);
        assert_eq!(self.lone.events(), []);
        assert_eq!(self.lone.sent(), []);
        assert_eq!(self.lone.conn.stats(), before);
    }
}

/// The window of one stream of [`handler`] or [`caller`], in bytes.
fn own_window() -> usize {
    Config::default().initial_window() as usize
}

fn handler() -> Tunnel {
    Tunnel::handler(Config::default())
}

fn caller() -> Tunnel {
    Tunnel::caller(Config::default())
}

/// Checks that a frame is refused: the only answer is a close with this code.
#[track_caller]
fn assert_refused(tunnel: &mut Tunnel, frame: Frame, code: Code) {
    let (id, streams) = (frame.stream_id, tunnel.lone.conn.active_streams());
    tunnel.lone.feed(frame);
    assert_eq!(
        tunnel.lone.events(),
        [],
        "the application never hears of it"
    );
    let sent = tunnel.lone.sent();
    match &sent[..] {
        [
            Frame {
                stream_id,
                kind: FrameKind::Close(close),
            },
        ] if *stream_id == id => {
            assert_eq!(close.status.code, code);
        }
        _ => panic!("{sent:?}"),
    }
    assert_eq!(tunnel.lone.conn.active_streams(), streams);
    tunnel.assert_goes_on();
}
