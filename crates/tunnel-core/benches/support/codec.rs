//! The scenarios of the codec alone: writing frames, and parsing them from a byte stream.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use tunnel_core::frame::framing::{Deframer, FrameWriter};
use tunnel_core::frame::{FrameKindRef, FrameRef, FrameSink, MAX_CHUNK_SIZE};
use tunnel_core::{Config, Metadata, Side, StreamId};

use super::joined::METHOD;
use super::scenario::{Round, Scenario, metadata, scenario};

/// How many frames are written before the buffer is emptied.
const FRAMES: usize = 48;

/// How the transport cuts the bytes.
#[derive(Clone, Copy)]
enum Slices {
    /// All frames in one piece.
    One,
    /// One piece for each frame.
    Frames,
    /// Pieces of about a network segment, whatever the frames. A frame in several pieces is copied
    /// together.
    Split,
}

/// Writes frames one after another into a buffer with enough capacity.
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

/// The frames of one byte stream. Frames of 1 KiB in one piece are copied, so that they do not keep
/// the whole piece alive. A chunk of 16 KiB in its own piece is not copied.
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

/// A buffer, and the parts of frames.
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
            compressed: false,
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

/// The frames of a caller's unary calls: opens, messages and half-closes in turn.
fn requests(i: i64, source: &mut Source) {
    let id = 1 + i / 3;
    match i % 3 {
        0 => source.open(id, 0),
        1 => source.message(id, 16),
        _ => write(&mut source.buf, id, FrameKindRef::HalfClose),
    }
}

/// At least `bytes` bytes of a caller's frames for unary calls.
pub(crate) fn unary_calls(bytes: usize) -> Vec<u8> {
    let mut source = Source::new();
    let mut frame = 1;
    while source.buf.len() < bytes {
        requests(frame, &mut source);
        frame += 1;
    }
    source.buf.into()
}

/// Writes the frame of a number from 1, which is its stream's id too.
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
