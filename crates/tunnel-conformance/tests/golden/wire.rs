//! A tunnel between two ends, whose frames are recorded.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tunnel_conformance::golden::{self, Recorded};
use tunnel_core::frame::codec;
use tunnel_core::{
    Config, Connection, Event, FrameRef, FrameSink, Metadata, Offer, Side, Status, StreamId,
};

/// A sink that keeps the bytes of frames.
struct Recorder<'a> {
    from: Side,
    frames: &'a mut Vec<Recorded>,
}

impl FrameSink for Recorder<'_> {
    fn frame(&mut self, frame: FrameRef<'_>) -> usize {
        let mut bytes = BytesMut::new();
        codec::encode(self.from, &frame, &mut bytes);
        let bytes = bytes.freeze();
        let len = bytes.len();
        let from = self.from;
        self.frames.push(Recorded { from, bytes });
        len
    }
}

/// A tunnel in virtual time.
pub(crate) struct Wire {
    pub(crate) caller: Connection,
    pub(crate) handler: Connection,
    pub(crate) now: Instant,
    recorded: Vec<Recorded>,
}

impl Wire {
    /// A tunnel whose both ends run this library. The recording begins with the settings.
    pub(crate) fn new(config: &Config) -> Self {
        // Other implementations have no heartbeats and no message credit.
        let mut offer = Offer::of(&Config::default());
        offer.heartbeat = None;
        offer.message_credit = false;
        Self::with_offer(config, offer)
    }

    pub(crate) fn with_offer(config: &Config, offer: Offer) -> Self {
        let now = Instant::now();
        let mut wire = Self {
            caller: Connection::new(Side::Caller, config.clone()),
            handler: Connection::new(Side::Handler, config.clone()),
            now,
            recorded: Vec::new(),
        };
        wire.caller.start(now, offer);
        wire.handler.start(now, offer);
        wire.carry();
        wire
    }

    /// Carries frames in both directions until none are left.
    pub(crate) fn carry(&mut self) {
        loop {
            let before = self.recorded.len();
            for from in [Side::Caller, Side::Handler] {
                let (end, peer) = match from {
                    Side::Caller => (&mut self.caller, &mut self.handler),
                    Side::Handler => (&mut self.handler, &mut self.caller),
                };
                let start = self.recorded.len();
                let frames = &mut self.recorded;
                end.transmit(self.now, usize::MAX, &mut Recorder { from, frames });
                for frame in &self.recorded[start..] {
                    let frame = frame.decode().expect("an encoded frame decodes");
                    peer.handle_frame(self.now, frame).expect("a legal frame");
                }
            }
            if self.recorded.len() == before {
                return;
            }
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.caller.handle_timeout(self.now);
        self.handler.handle_timeout(self.now);
    }

    /// Opens a call with these headers.
    pub(crate) fn open(&mut self, headers: &[(&str, &str)]) -> StreamId {
        let headers: Metadata = headers.iter().copied().collect();
        let id = self
            .caller
            .open(self.now, "/golden.Service/Method", headers);
        id.expect("the tunnel is open")
    }

    /// The caller sends whole messages, and finishes.
    pub(crate) fn request(&mut self, id: StreamId, messages: &[&'static [u8]]) {
        let mut send = self.caller.send_stream(id);
        for message in messages {
            send.message((*message).into()).expect("the call is open");
        }
        send.finish().expect("the call is open");
        self.carry();
    }

    /// The handler answers with headers, messages, and an end.
    pub(crate) fn answer(&mut self, id: StreamId, messages: &[&'static [u8]], status: Status) {
        let mut send = self.handler.send_stream(id);
        let headers = [("answer", "header")].into_iter().collect();
        send.headers(headers).expect("the call is open");
        for message in messages {
            send.message((*message).into()).expect("the call is open");
        }
        let trailers = [("answer", "trailer")].into_iter().collect();
        send.close(trailers, status).expect("the call is open");
        self.carry();
    }

    /// Reads all that one end has, as its application would.
    pub(crate) fn read(&mut self, side: Side, id: StreamId) {
        let end = match side {
            Side::Caller => &mut self.caller,
            Side::Handler => &mut self.handler,
        };
        end.recv_stream(id).take_headers();
        while let tunnel_core::Read::Data(_) = end.recv_stream(id).read() {}
        while let Some(event) = end.poll_event() {
            assert!(!matches!(event, Event::Ended(_)), "{event:?}");
        }
        self.carry();
    }

    /// Compares the recorded frames with the recording of this name, or replaces the recording.
    pub(crate) fn matches(&self, name: &str, title: &str) {
        let text = golden::write(title, &self.recorded);
        assert_eq!(golden::read(&text).as_ref(), Ok(&self.recorded));
        let path = folder("ours").join(format!("{name}.frames"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, text).expect("the recording is written");
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == expected,
            "the wire has changed: {name} was\n{expected}\nand is\n{text}\nBLESS=1 records it anew"
        );
    }
}

/// The folder of recordings.
pub(crate) fn folder(of: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", of].iter().collect()
}
