//! Two ends of a tunnel, joined by buffers, with all work of a transport except I/O: frames are
//! encoded, put on a byte stream, cut from it, parsed and handled, in batches of the tonic binding's
//! size. Time stands still.

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::{
    Config, Connection, Event, Metadata, Offer, Read, Side, Status, StreamId, WriteError,
};

/// A method of ordinary length.
pub(crate) const METHOD: &str = "/grpc.testing.TestService/UnaryCall";

/// The size of a batch, in bytes.
const BATCH: usize = 64 << 10;

/// One direction of the transport.
///
/// Its buffer is large enough to be reused while nothing keeps a part of it. So the transport does
/// not allocate, and only the tunnel's allocations are counted.
struct Wire {
    buf: BytesMut,
    deframer: Deframer,
}

impl Wire {
    fn new(config: &Config) -> Self {
        Self {
            buf: BytesMut::with_capacity(4 * BATCH),
            deframer: Deframer::new(config.max_frame_size()),
        }
    }

    /// Delivers all frames of one end to the other.
    fn carry(&mut self, now: Instant, from: &mut Connection, to: &mut Connection) {
        let side = from.side();
        let mut writer = FrameWriter::new(side, &mut self.buf);
        while from.transmit(now, BATCH, &mut writer) > 0 {
            self.deframer.push(self.buf.split().freeze());
            while let Some(frame) = self.deframer.decode_next(side).expect("frames of ours") {
                to.handle_frame(now, frame).expect("both ends are ours");
            }
            writer = FrameWriter::new(side, &mut self.buf);
        }
    }
}

/// A tunnel, ready for calls.
pub(crate) struct Joined {
    now: Instant,
    caller: Connection,
    handler: Connection,
    to_handler: Wire,
    to_caller: Wire,
}

impl Joined {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    /// A tunnel with one configuration at both ends.
    pub(crate) fn with(config: Config) -> Self {
        let now = Instant::now();
        let offer = Offer::of(&config);
        let mut joined = Self {
            now,
            to_handler: Wire::new(&config),
            to_caller: Wire::new(&config),
            caller: Connection::new(Side::Caller, config.clone()),
            handler: Connection::new(Side::Handler, config),
        };
        joined.caller.start(now, offer);
        joined.handler.start(now, offer);
        joined.carry(Side::Handler);
        for end in [&mut joined.caller, &mut joined.handler] {
            assert_eq!(end.poll_event(), Some(Event::Ready));
        }
        joined
    }

    /// Delivers all frames of one side to the other.
    pub(crate) fn carry(&mut self, from: Side) {
        let (now, caller, handler) = (self.now, &mut self.caller, &mut self.handler);
        match from {
            Side::Caller => self.to_handler.carry(now, caller, handler),
            Side::Handler => self.to_caller.carry(now, handler, caller),
        }
    }

    /// The number of streams of both ends together.
    pub(crate) fn streams(&self) -> usize {
        self.caller.active_streams() + self.handler.active_streams()
    }

    fn open(&mut self, headers: Metadata) -> StreamId {
        self.caller
            .open(self.now, METHOD, headers)
            .expect("the tunnel is ready and below its limit")
    }

    /// Makes whole calls, `at_a_time` at once: one message in each direction, and an OK status.
    pub(crate) fn unary_calls(&mut self, at_a_time: usize, headers: &Metadata, payload: &Bytes) {
        for _ in 0..at_a_time {
            let id = self.open(headers.clone());
            let mut request = self.caller.send_stream(id);
            sent(request.message(payload.clone()));
            sent(request.finish());
        }
        self.carry(Side::Caller);
        let served = self.answer_calls(payload);
        self.carry(Side::Handler);
        let answered = self.take_answers();
        assert_eq!((served, answered), (at_a_time, at_a_time));
    }

    /// The handler reads each request to its end and answers it; returns the number of calls.
    fn answer_calls(&mut self, payload: &Bytes) -> usize {
        let mut served = 0;
        while let Some(event) = self.handler.poll_event() {
            let Event::Readable(id) = event else { continue };
            read_to_end(&mut self.handler, id);
            let mut response = self.handler.send_stream(id);
            sent(response.headers(Metadata::new()));
            sent(response.message(payload.clone()));
            sent(response.close(Metadata::new(), Status::OK));
            served += 1;
        }
        served
    }

    /// The caller reads headers, messages and ends; returns the number of calls that ended.
    fn take_answers(&mut self) -> usize {
        let mut answered = 0;
        while let Some(event) = self.caller.poll_event() {
            let Event::Readable(id) = event else { continue };
            black_box(self.caller.recv_stream(id).take_headers());
            read_to_end(&mut self.caller, id);
            answered += 1;
        }
        answered
    }

    /// Opens streams and answers them with headers, with no messages.
    pub(crate) fn open_idle(&mut self, count: usize) -> Vec<StreamId> {
        let ids: Vec<_> = (0..count).map(|_| self.open(Metadata::new())).collect();
        self.carry(Side::Caller);
        while let Some(event) = self.handler.poll_event() {
            if let Event::Opened { id, .. } = event {
                sent(self.handler.send_stream(id).headers(Metadata::new()));
            }
        }
        self.carry(Side::Handler);
        while let Some(event) = self.caller.poll_event() {
            if let Event::Readable(id) = event {
                black_box(self.caller.recv_stream(id).take_headers());
                assert_eq!(self.caller.recv_stream(id).read(), Read::Pending);
            }
        }
        ids
    }

    /// Closes streams without messages.
    pub(crate) fn close_idle(&mut self, ids: &[StreamId]) {
        for &id in ids {
            sent(self.caller.send_stream(id).finish());
        }
        self.carry(Side::Caller);
        while let Some(event) = self.handler.poll_event() {
            if let Event::Readable(id) = event {
                read_to_end(&mut self.handler, id);
                sent(
                    self.handler
                        .send_stream(id)
                        .close(Metadata::new(), Status::OK),
                );
            }
        }
        self.carry(Side::Handler);
        let ended = self.take_answers();
        assert_eq!(ended, ids.len());
    }

    /// Sends messages from one side on an open stream, and reads them at the other as they arrive.
    pub(crate) fn messages(&mut self, from: Side, id: StreamId, payload: &Bytes, count: usize) {
        for _ in 0..count {
            sent(self.end(from).send_stream(id).message(payload.clone()));
        }
        let mut whole = 0;
        while whole < count {
            self.carry(from);
            let reader = self.end(from.peer());
            while let Some(event) = reader.poll_event() {
                black_box(event);
            }
            while let Read::Data(chunk) = reader.recv_stream(id).read() {
                whole += usize::from(chunk.ends);
                black_box(chunk);
            }
            // Credit.
            self.carry(from.peer());
            while let Some(event) = self.end(from).poll_event() {
                black_box(event);
            }
        }
    }

    fn end(&mut self, side: Side) -> &mut Connection {
        match side {
            Side::Caller => &mut self.caller,
            Side::Handler => &mut self.handler,
        }
    }
}

#[track_caller]
fn sent(result: Result<(), WriteError>) {
    result.expect("the stream is open");
}

/// Reads a stream to its end.
fn read_to_end(conn: &mut Connection, id: StreamId) {
    loop {
        match conn.recv_stream(id).read() {
            Read::Data(chunk) => {
                black_box(chunk);
            }
            Read::HalfClosed | Read::Closed(_) => return,
            other => panic!("data or an end, not {other:?}"),
        }
    }
}
