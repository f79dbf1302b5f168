//! Arbitrary bytes as a frame.
//!
//! Layout: places to cut ([`Input::cuts`]), then the bytes of a frame.
//!
//! Whatever the bytes are, and whoever is taken to have sent them:
//!
//! - prost and we both read them and read the same, or both refuse them: whatever the order
//!   of fields, what comes twice, and what nobody knows;
//! - cut into pieces behind gRPC's prefix, they mean the same;
//! - what we read we write in one form, which prost reads as the same, and so do we;
//! - parsing takes no more memory than is promised, and a payload no more than its bytes.

use bytes::{BufMut, Bytes, BytesMut};
use tunnel_core::frame::codec::{decode, encode, encoded_len};
use tunnel_core::frame::framing::{Deframer, FrameError};
use tunnel_core::{Frame, FrameKind, Side};

use super::{Allow, Input, cut};
use crate::frames::borrowed;
use crate::oracle::{self, Wire, sorted};

/// What `codec` promises of the memory that decoding takes: at most this many times the
/// size of the frame, and a little that does not depend on it.
const TIMES: usize = 50;
const CONSTANT: usize = 4096;

pub(crate) fn run(data: &[u8], allow: Allow) {
    let mut input = Input::new(data);
    let cuts = input.cuts();
    let bytes = Bytes::copy_from_slice(input.rest());
    for from in [Side::Caller, Side::Handler] {
        if let Err(difference) = oracle::agree(from, &bytes) {
            panic!("{from:?}: {difference}");
        }
        allow(Some(TIMES * bytes.len() + CONSTANT));
        let frame = decode(from, bytes.clone());
        allow(None);
        in_pieces(from, &bytes, &cuts, &frame);
        if let Ok(frame) = frame {
            check_payload(&bytes, &frame);
            check_written(from, frame);
        }
    }
}

/// The same frame comes out of a byte stream.
fn in_pieces<E>(from: Side, bytes: &Bytes, cuts: &[u16], expected: &Result<Frame, E>)
where
    E: Copy + Into<FrameError>,
{
    let mut stream = BytesMut::new();
    stream.put_u8(0);
    stream.put_u32(bytes.len() as u32);
    stream.extend_from_slice(bytes);
    let mut deframer = Deframer::new(bytes.len());
    let mut seen = Vec::new();
    for piece in cut(&stream, cuts) {
        deframer.push(piece);
        while let Some(next) = deframer.decode_next(from).transpose() {
            seen.push(next);
        }
    }
    match (&seen[..], expected) {
        ([Ok(seen)], Ok(expected)) => assert_eq!(seen, expected),
        ([Err(seen)], Err(expected)) => assert_eq!(*seen, (*expected).into()),
        (seen, _) => panic!("one frame, not {seen:?}"),
    }
    assert!(!deframer.is_mid_frame());
}

/// How much may stand around a payload that is not copied out of its frame.
const MOST_AROUND: usize = 64;

/// A payload is a part of what was received, and nothing else keeps that alive; neither does a
/// payload that is little of its frame.
fn check_payload(bytes: &Bytes, frame: &Frame) {
    let within = bytes.as_ptr_range();
    match &frame.kind {
        FrameKind::Message { data, .. } | FrameKind::MoreData(data) if !data.is_empty() => {
            let padded = bytes.len() - data.len() > MOST_AROUND;
            assert_eq!(within.contains(&data.as_ptr()), !padded, "{frame:?}");
        }
        _ => assert!(
            bytes.is_unique() || bytes.is_empty(),
            "{frame:?} keeps the received bytes alive"
        ),
    }
}

/// What was read is written in one form, and read again as what it was.
fn check_written(from: Side, frame: Frame) {
    if frame.kind == FrameKind::Unknown || oracle::is_over_limit(&frame) {
        return;
    }
    let written = encoded(from, &frame);
    let again = decode(from, written.clone()).expect("we read what we write");
    assert_eq!(
        encoded(from, &again),
        written,
        "writing again changes nothing"
    );
    let frame = sorted(frame);
    assert_eq!(sorted(again), frame);
    let theirs = Wire::parse(from, written).expect("prost reads what we write");
    assert_eq!(oracle::frame(theirs), frame);
}

fn encoded(from: Side, frame: &Frame) -> Bytes {
    let frame = borrowed(frame);
    let mut buf = BytesMut::new();
    encode(from, &frame, &mut buf);
    assert_eq!(buf.len(), encoded_len(from, &frame));
    buf.freeze()
}
