//! The cost of decoding for each received byte, by the shape of the frames.
//!
//! A peer chooses the shape of its frames, and its connection limits the bytes. So no shape may cost
//! much more for each byte than [`ORDINARY`] traffic.

use std::hint::black_box;

use bytes::Bytes;
use tunnel_core::frame::framing::Deframer;
use tunnel_core::{Config, Side};

use super::codec;
use super::scenario::{Round, Scenario, Work};
use super::wire::{delimited, key, varint};

/// The frames of ordinary unary calls, the baseline of all shapes.
pub(crate) const ORDINARY: &Scenario = &SHAPES[0];

/// The most instructions of a shape for each byte, as a multiple of [`ORDINARY`].
pub(crate) const MOST: f64 = 4.0;

/// About the bytes that a round decodes.
const BYTES: usize = 240_000;

/// Units are bytes, including the prefixes of frames.
pub(crate) const SHAPES: &[Scenario] = &[
    shape("decode unary calls of 16 B", || {
        (Side::Caller, codec::unary_calls(BYTES))
    }),
    shape("decode window updates", || {
        repeated(Side::Caller, &[STREAM, b"\x38\x01"])
    }),
    shape("decode half-closes", || {
        repeated(Side::Caller, &[STREAM, b"\x2a\x00"])
    }),
    shape("decode empty messages", || {
        repeated(Side::Caller, &[STREAM, b"\x1a\x00"])
    }),
    shape("decode messages of 1 B", || {
        repeated(Side::Caller, &[STREAM, b"\x1a\x05\x08\x01\x12\x01x"])
    }),
    shape("decode chunks of 1 B, fields out of order", || {
        repeated(Side::Caller, &[b"\x22\x01x", STREAM])
    }),
    shape("decode empty frames", || repeated(Side::Caller, &[])),
    shape("decode responses without headers", || {
        repeated(Side::Handler, &[STREAM, b"\x12\x00"])
    }),
    shape("decode opens with 16 keys", || {
        let keys: Vec<u8> = (0..16).flat_map(|i| entry(&[b'a' + i], b"")).collect();
        repeated(Side::Caller, &[&opening(&keys)])
    }),
    shape("decode opens with 17 keys", || {
        let keys: Vec<u8> = (0..17).flat_map(|i| entry(&[b'a' + i], b"")).collect();
        repeated(Side::Caller, &[&opening(&keys)])
    }),
    shape("decode 4,000 empty map entries", || {
        repeated(Side::Caller, &[&opening(&b"\x0a\x00".repeat(4000))])
    }),
    shape("decode 4,000 keys", || {
        repeated(Side::Caller, &[&opening(&distinct(b""))])
    }),
    shape("decode 4,000 keys and values", || {
        repeated(Side::Caller, &[&opening(&distinct(b"\x0a\x00"))])
    }),
    shape("decode 4,000 long keys that begin alike", || {
        let key = |i| [&[b'k'; 50], &short(i)[..]].concat();
        let entries: Vec<u8> = (0..4000).flat_map(|i| entry(&key(i), b"")).collect();
        repeated(Side::Caller, &[&opening(&entries)])
    }),
    shape("decode 4,000 values before their keys", || {
        let entry = |i| delimited(1, &[b"\x12\x02\x0a\x00\x0a\x02", &short(i)[..]].concat());
        let entries: Vec<u8> = (0..4000).flat_map(entry).collect();
        repeated(Side::Caller, &[&opening(&entries)])
    }),
    shape("decode 4,000 empty values", || {
        let values = entry(b"k", &b"\x0a\x00".repeat(4000));
        repeated(Side::Caller, &[&opening(&values)])
    }),
    shape("decode 120,000 empty map entries", || {
        repeated(Side::Caller, &[&opening(&b"\x0a\x00".repeat(120_000))])
    }),
    shape("decode 60,000 empty values in 2 keys", || {
        let values = entry(b"k", &b"\x0a\x00".repeat(60_000));
        repeated(Side::Caller, &[&opening(&values.repeat(2))])
    }),
    shape("decode 4,000 empty status details", || {
        repeated(Side::Handler, &[&closing(&b"\x1a\x00".repeat(4000))])
    }),
    shape("decode 4,000 small status details", || {
        let detail = b"\x1a\x06\x0a\x01t\x12\x01v";
        repeated(Side::Handler, &[&closing(&detail.repeat(4000))])
    }),
    shape("decode 120,000 empty status details", || {
        repeated(Side::Handler, &[&closing(&b"\x1a\x00".repeat(120_000))])
    }),
    shape("decode packed revisions", || {
        let packed = delimited(1, &b"\x01".repeat(BYTES));
        repeated(Side::Handler, &[&delimited(6, &packed)])
    }),
    shape("decode plain revisions", || {
        repeated(
            Side::Handler,
            &[&delimited(6, &b"\x08\x01".repeat(BYTES / 2))],
        )
    }),
    shape("decode methods replaced", || {
        let methods = delimited(2, &b"\x0a\x01m".repeat(BYTES / 3));
        repeated(Side::Caller, &[&methods])
    }),
    shape("decode kinds replaced", || {
        let open = b"\x12\x09\x0a\x01m\x12\x04\x0a\x02\x0a\x00";
        let kinds = [&open[..], b"\x22\x00"].concat().repeat(BYTES / 13);
        repeated(Side::Caller, &[&kinds])
    }),
    shape("decode unknown fields", || {
        repeated(Side::Caller, &[&b"\x48\x00".repeat(BYTES / 2)])
    }),
    shape("decode unknown groups", || {
        repeated(Side::Caller, &[&b"\x4b\x4c".repeat(BYTES / 2)])
    }),
    shape("decode nested groups", || {
        let group = [b"\x4b".repeat(99), b"\x4c".repeat(99)].concat();
        repeated(Side::Caller, &[&group.repeat(BYTES / 198)])
    }),
    shape("decode padded numbers", || {
        let number = [varint(key(7, 0), 4), varint(1, 9)].concat();
        repeated(Side::Caller, &[&number.repeat(BYTES / 15)])
    }),
];

/// The field with the stream id.
const STREAM: &[u8] = b"\x08\x01";

const fn shape(name: &'static str, stream: fn() -> (Side, Vec<u8>)) -> Scenario {
    Scenario {
        name,
        unit: "byte",
        payload: 0,
        rounds: 4,
        work: Work::Decode(stream),
    }
}

/// A round that decodes all frames of a byte stream.
pub(crate) fn decode((from, stream): (Side, Vec<u8>)) -> Round {
    let stream = Bytes::from(stream);
    let mut deframer = Deframer::new(Config::default().max_frame_size());
    Box::new(move || {
        deframer.push(stream.clone());
        while let Some(frame) = deframer.decode_next(from).expect("valid frames") {
            black_box(frame);
        }
        assert!(!deframer.is_mid_frame());
    })
}

/// A byte stream that repeats one frame.
fn repeated(from: Side, fields: &[&[u8]]) -> (Side, Vec<u8>) {
    let fields = fields.concat();
    let prefix = [&[0], &(fields.len() as u32).to_be_bytes()[..]].concat();
    let frame = [prefix, fields].concat();
    (from, frame.repeat(BYTES.div_ceil(frame.len())))
}

/// A new stream with these map entries.
fn opening(entries: &[u8]) -> Vec<u8> {
    delimited(2, &[b"\x0a\x01m", &delimited(2, entries)[..]].concat())
}

/// The end of a stream with these status details.
fn closing(details: &[u8]) -> Vec<u8> {
    delimited(5, &delimited(2, details))
}

/// A map entry of a key and encoded values.
fn entry(key: &[u8], values: &[u8]) -> Vec<u8> {
    let values = match values {
        [] => Vec::new(),
        values => delimited(2, values),
    };
    delimited(1, &[delimited(1, key), values].concat())
}

/// 4,000 map entries with different unsorted keys and the same encoded values.
fn distinct(values: &[u8]) -> Vec<u8> {
    (0..4000).flat_map(|i| entry(&short(i), values)).collect()
}

/// Two letters, different for each of 4,096 numbers.
fn short(i: u32) -> [u8; 2] {
    let mixed = i.wrapping_mul(2_531) % 4096;
    [b'0' + (mixed / 64) as u8, b'0' + (mixed % 64) as u8]
}
