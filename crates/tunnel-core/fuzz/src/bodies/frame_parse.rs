//! Arbitrary bytes as a frame.
//!
//! Layout: places to cut ([`Input::cuts`]), then the bytes of a frame.
//!
//! Checked for any bytes from either side:
//!
//! - prost and our codec read the same frame, or both refuse the bytes, with fields in any order,
//!   repeated and unknown;
//! - cut into pieces after gRPC's prefix, the bytes give the same frame;
//! - written again, the frame is read as the same by prost and by our codec;
//! - parsing takes no more memory than promised, and a payload no more than its bytes.

use bytes::{BufMut, Bytes, BytesMut};
use tunnel_core::frame::codec::{decode, encode, encoded_len};
use tunnel_core::frame::framing::{Deframer, FrameError};
use tunnel_core::{Frame, FrameKind, Side};

use super::{Allow, Input, cut};
use crate::frames::borrowed;
use crate::oracle::{self, Wire, sorted};

/// The promise of `codec` on the memory of decoding: at most this many times the size of the
/// frame, and a constant.
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

/// Checks that the same frame comes out of a byte stream.
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

/// How many bytes may surround a payload that is not copied out of its frame.
const MOST_AROUND: usize = 64;

/// Checks that only a payload keeps the received bytes alive, and no payload that is a small part
/// of its frame.
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

/// Checks that the frame is read as the same after it was written.
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
