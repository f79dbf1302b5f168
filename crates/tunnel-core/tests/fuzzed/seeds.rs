//! Makes the seeds: golden frames, laid out as each fuzz target reads its input.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "another crate's module, here only to read"
)]
#[path = "../../../tunnel-conformance/src/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tunnel_core::{FrameKind, Side};

use crate::bodies::connection::op;
use golden::Recorded;

/// Recordings that together have every kind of frame and every implementation.
const RECORDINGS: &[&str] = &[
    "go/bidi-half-close",
    "go/failure-details",
    "go/unary",
    "go/unary-revision-zero",
    "ours/cancelled",
    "ours/chunks",
    "ours/drain-caller",
    "ours/drain-handler",
    "ours/empty-messages",
    "ours/refused",
    "python/deadline",
    "python/metadata-bin",
];

/// The size limit of a seed, in bytes.
const LARGEST: usize = 2000;

type Seeds = BTreeMap<String, Vec<u8>>;

/// The seeds of each target, by name.
pub(crate) fn all() -> [(&'static str, Seeds); 4] {
    let [mut parse, mut roundtrip, mut framing, mut connection] = [const { Seeds::new() }; 4];
    for recording in RECORDINGS {
        let frames = read(recording);
        for side in [Side::Caller, Side::Handler] {
            let who = match side {
                Side::Caller => "caller",
                Side::Handler => "handler",
            };
            let name = format!("{}-{who}", recording.replace('/', "-"));
            let frames_sent: Vec<_> = frames.iter().filter(|f| f.from == side).collect();
            parse.insert(name.clone(), one_frame(&frames_sent));
            framing.insert(name.clone(), stream(&frames_sent));
            connection.insert(name, operations(side, &frames));
        }
    }
    for choice in 0..4u8 {
        for kind in 0..7u8 {
            roundtrip.insert(format!("{choice}-{kind}"), parts(choice, kind));
        }
    }
    for (name, fields) in unusual() {
        let mut seed = vec![0];
        seed.extend(fields);
        parse.insert(format!("made-{name}"), seed);
    }
    for (name, seed) in sessions() {
        connection.insert(format!("made-{name}"), seed);
    }
    [
        ("frame_parse", parse),
        ("frame_roundtrip", roundtrip),
        ("framing", framing),
        ("connection", connection),
    ]
}

fn read(recording: &str) -> Vec<Recorded> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tunnel-conformance/golden");
    let path = golden.join(recording).with_extension("frames");
    let text = fs::read_to_string(path).expect("a recording");
    golden::read(&text).expect("a recording")
}

/// All frames of one side as one frame: repeated fields are merged, and the last member of a
/// `oneof` counts. Two cuts.
fn one_frame(frames: &[&Recorded]) -> Vec<u8> {
    let mut seed = vec![2, 0, 3, 0, 20];
    for frame in frames {
        if seed.len() + frame.bytes.len() <= LARGEST {
            seed.extend_from_slice(&frame.bytes);
        }
    }
    seed
}

/// The frames of one side on a byte stream, as they are; a limit of 64 KiB, three cuts.
fn stream(frames: &[&Recorded]) -> Vec<u8> {
    let mut seed = vec![0, 255, 0, 1, 0, 0, 3, 0, 2, 0, 7, 0, 40];
    for frame in frames {
        if seed.len() + frame.bytes.len() <= LARGEST {
            seed.push(0);
            seed.extend((frame.bytes.len() as u32).to_be_bytes());
            seed.extend_from_slice(&frame.bytes);
        }
    }
    seed
}

/// The setup: side and negotiation, then the first of every choice, except for larger messages,
/// metadata and spare memory. At a caller the settings follow.
fn setup(side: Side, streams: u8) -> Vec<u8> {
    let mut seed = vec![u8::from(side == Side::Handler)];
    seed.extend([0, 0, streams, 0, 3, 0, 0, 3, 2, 0, 0, 0]);
    if side == Side::Caller {
        seed.extend([0, 0]);
    }
    seed
}

/// One end of a recording: the operations behind the frames that it sent, and the frames that it
/// received.
fn operations(side: Side, frames: &[Recorded]) -> Vec<u8> {
    let mut seed = setup(side, 0);
    for frame in frames {
        let kind = frame.decode().expect("a golden frame").kind;
        if frame.from != side {
            received(&mut seed, frame, &kind);
        } else {
            sent(&mut seed, side, &kind);
            seed.extend([op::TRANSMIT, 255]);
        }
        if seed.len() > LARGEST {
            break;
        }
    }
    seed.extend([op::READ_ALL, op::TRANSMIT, 255]);
    seed
}

fn received(seed: &mut Vec<u8>, frame: &Recorded, kind: &FrameKind) {
    if matches!(kind, FrameKind::Settings(_)) {
        // Part of the setup.
    } else if frame.bytes.len() < 400 {
        seed.push(op::RAW);
        seed.extend((frame.bytes.len() as u16).to_be_bytes());
        seed.extend_from_slice(&frame.bytes);
    } else {
        // A made-up message on the latest stream in place of a long frame.
        seed.extend([op::FRAME, 0, 0, 0, 240]);
    }
    seed.extend([op::READ, 0, 3]);
}

fn sent(seed: &mut Vec<u8>, side: Side, kind: &FrameKind) {
    match kind {
        FrameKind::NewStream(_) => seed.extend([op::OPEN, 0]),
        FrameKind::Headers(_) => seed.extend([op::HEADERS, 0, 6]),
        FrameKind::Message { size, .. } => {
            seed.extend([op::MESSAGE, 0]);
            seed.extend((*size as u16).to_be_bytes());
        }
        FrameKind::HalfClose => seed.extend([op::FINISH, 0]),
        FrameKind::Close(close) => {
            seed.extend([op::FINISH, 0, close.status.code.to_wire() as u8, 6]);
        }
        FrameKind::Cancel => seed.extend([op::ABANDON, 0]),
        _ => {}
    }
    if side == Side::Handler {
        seed.push(op::READ_ALL);
    }
}

/// A frame in parts that are neither empty nor the same.
fn parts(choice: u8, kind: u8) -> Vec<u8> {
    let mut seed = vec![choice, 7, kind];
    for i in 1..8 {
        seed.extend([i, 3, b'a', b'b', b'c']);
    }
    seed
}

/// Frames that no implementation sends and the format allows.
fn unusual() -> [(&'static str, Vec<u8>); 10] {
    let group = |levels: usize| [vec![0x7b; levels], vec![0x7c; levels]].concat();
    let ten = |last: u8| [&[0x08][..], &[0xff; 9], &[last]].concat();
    [
        (
            "message-then-its-size",
            b"\x1a\x04\x08\x05\x12\x00\x1a\x02\x08\x07".to_vec(),
        ),
        (
            "message-then-its-data",
            b"\x1a\x02\x08\x05\x1a\x03\x12\x01a".to_vec(),
        ),
        (
            "message-and-back",
            b"\x1a\x02\x08\x05\x22\x01a\x1a\x03\x12\x01a".to_vec(),
        ),
        (
            "data-before-id",
            b"\x1a\x05\x12\x01a\x08\x01\x08\x80\x81\x00".to_vec(),
        ),
        (
            "key-twice",
            b"\x12\x10\x0a\x06\x0a\x00\x12\x02\x0a\x00\x0a\x06\x12\x02\x0a\x00\x0a\x00".to_vec(),
        ),
        (
            "revisions-both-ways",
            b"\x32\x06\x0a\x02\x00\x01\x08\x02".to_vec(),
        ),
        ("integer-of-64-bits", ten(1)),
        ("integer-of-65-bits", ten(2)),
        ("groups-of-100-levels", group(100)),
        ("groups-of-101-levels", group(101)),
    ]
}

/// Sessions that recordings lack: a stream limit is reached, a writer waits, a call between two
/// ends.
fn sessions() -> [(&'static str, Vec<u8>); 3] {
    let mut limit = setup(Side::Caller, 1);
    limit.extend([op::OPEN, 0, op::OPEN, 0, op::TRANSMIT, 255]);
    let mut waits = setup(Side::Caller, 0);
    waits.extend([op::OPEN, 0, op::MESSAGE, 0, 8, 0, op::WRITABLE, 0]);
    waits.extend([op::TRANSMIT, 255, op::WRITABLE, 0]);
    let mut two_ends = vec![64];
    two_ends.extend([0; 13]);
    two_ends.extend([op::OPEN, 0, op::MESSAGE, 0, 8, 0, op::BODY, 0, 8, 1]);
    two_ends.extend([op::FINISH, 0, op::PUMP]);
    let handler = 0x80;
    two_ends.extend([handler | op::READ_ALL, handler | op::MESSAGE, 0, 8, 0]);
    two_ends.extend([handler | op::FINISH, 0, 0, 0, handler | op::TRANSMIT, 255]);
    two_ends.extend([handler | op::CARRY, 9, op::READ_ALL]);
    [
        ("stream-limit", limit),
        ("writer-waits", waits),
        ("two-ends", two_ends),
    ]
}
