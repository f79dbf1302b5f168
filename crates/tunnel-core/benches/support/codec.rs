//! The scenarios of frames alone: making them, and finding and parsing them in a byte stream.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::frame::{FrameKindRef, FrameRef, FrameSink, MAX_CHUNK_SIZE};
use tunnel_core::{Config, Metadata, Side, StreamId};

use super::joined::METHOD;
use super::scenario::{Round, Scenario, metadata, scenario};

/// How many frames are made before the buffer is emptied.
const FRAMES: usize = 48;

/// In what pieces the transport hands on the bytes.
#[derive(Clone, Copy)]
enum Slices {
    /// All frames in one.
    One,
    /// Each frame in one of its own.
    Frames,
    /// No regard for frames: each about what a segment of a network carries. A frame that no
    /// slice holds whole is copied together.
    Split,
}

/// Frames written behind one another into a buffer that is there already.
pub(crate) const ENCODE: &[Scenario] = &[
    encoding("encode messages of 16 B", || {
        encode(|id, sink| sink.message(id, 16))
    }),
    encoding("encode chunks of 16 KiB", || {
        encode(|id, sink| sink.message(id, MAX_CHUNK_SIZE))
    }),
    encoding("encode opens", || encode(|id, sink| sink.open(id, 0))),
    encoding("encode opens, 10 metadata entries", || {
        encode(|id, sink| sink.open(id, 10))
    }),
];

/// Frames of one byte stream. Those of 1 KiB in one slice are copied out of it, lest a part
/// keep all of it alive; a chunk of 16 KiB comes in a slice of its own and is not.
pub(crate) const PARSE: &[Scenario] = &[
    parsing("parse requests of 16 B", || parse(Slices::One, requests)),
    parsing("parse requests of 16 B, split", || {
        parse(Slices::Split, requests)
    }),
    parsing("parse opens, 10 metadata entries", || {
        parse(Slices::One, |id, sink| sink.open(id, 10))
    }),
    parsing("parse messages of 1 KiB", || {
        parse(Slices::One, |id, sink| sink.message(id, 1 << 10))
    }),
    parsing("parse messages of 1 KiB, split", || {
        parse(Slices::Split, |id, sink| sink.message(id, 1 << 10))
    }),
    parsing("parse chunks of 16 KiB", || {
        parse(Slices::Frames, |id, sink| sink.message(id, MAX_CHUNK_SIZE))
    }),
    parsing("parse chunks of 16 KiB, split", || {
        parse(Slices::Split, |id, sink| sink.message(id, MAX_CHUNK_SIZE))
    }),
];

const fn encoding(name: &'static str, set_up: fn() -> Round) -> Scenario {
    scenario(name, "frame", [FRAMES, 16], set_up)
}

const fn parsing(name: &'static str, set_up: fn() -> Round) -> Scenario {
    scenario(name, "frame", [FRAMES, 16], set_up)
}

/// A buffer, and what frames are made of.
struct Source {
    buf: BytesMut,
    payload: Vec<u8>,
    none: Metadata,
    ten: Metadata,
}

impl Source {
    fn new() -> Self {
        Self {
            buf: BytesMut::with_capacity(FRAMES * (MAX_CHUNK_SIZE + 64)),
            payload: vec![7; MAX_CHUNK_SIZE],
            none: metadata(0),
            ten: metadata(10),
        }
    }

    fn open(&mut self, stream_id: i64, entries: usize) {
        let headers = if entries == 0 { &self.none } else { &self.ten };
        let kind = FrameKindRef::NewStream {
            method: METHOD,
            headers,
            initial_window: 65_536,
            revision: 1,
        };
        write(&mut self.buf, stream_id, kind);
    }

    fn message(&mut self, stream_id: i64, size: usize) {
        let kind = FrameKindRef::Message {
            size: size as u32,
            data: &self.payload[..size],
        };
        write(&mut self.buf, stream_id, kind);
    }
}

fn write(buf: &mut BytesMut, stream_id: i64, kind: FrameKindRef<'_>) {
    let frame = black_box(FrameRef {
        stream_id: StreamId::new(stream_id),
        kind,
    });
    black_box(FrameWriter::new(Side::Caller, buf).frame(frame));
}

/// What a caller sends for unary calls: opens, messages and half-closes in turn.
fn requests(i: i64, source: &mut Source) {
    let id = 1 + i / 3;
    match i % 3 {
        0 => source.open(id, 0),
        1 => source.message(id, 16),
        _ => write(&mut source.buf, id, FrameKindRef::HalfClose),
    }
}

/// The frames of unary calls from their caller: at least `bytes` bytes of them.
pub(crate) fn unary_calls(bytes: usize) -> Vec<u8> {
    let mut source = Source::new();
    let mut frame = 1;
    while source.buf.len() < bytes {
        requests(frame, &mut source);
        frame += 1;
    }
    source.buf.into()
}

/// Makes one frame, numbered from 1; the number serves as its stream's.
type Make = fn(i64, &mut Source);

fn make_all(make: Make, source: &mut Source) {
    (1..=FRAMES as i64).for_each(|i| make(i, source));
}

fn encode(make: Make) -> Round {
    let mut source = Source::new();
    Box::new(move || {
        source.buf.clear();
        make_all(make, &mut source);
        black_box(&source.buf);
    })
}

fn parse(slices: Slices, make: Make) -> Round {
    let mut source = Source::new();
    make_all(make, &mut source);
    let stream = source.buf.freeze();
    let length = match slices {
        Slices::One => stream.len(),
        Slices::Frames => stream.len() / FRAMES,
        Slices::Split => 1400,
    };
    let slices: Vec<_> = stream.chunks(length).map(Bytes::copy_from_slice).collect();
    let mut deframer = Deframer::new(Config::default().max_frame_size());
    Box::new(move || {
        let mut parsed = 0;
        for slice in &slices {
            deframer.push(slice.clone());
            while let Some(frame) = deframer.decode_next(Side::Caller).expect("frames of ours") {
                black_box(frame);
                parsed += 1;
            }
        }
        assert_eq!(parsed, FRAMES);
    })
}
