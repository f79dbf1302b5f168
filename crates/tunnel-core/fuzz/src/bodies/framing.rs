//! Frames on a byte stream.
//!
//! Layout: one byte of choices, the limit on a frame (a number), places to cut, then the stream. It
//! is raw or, by choice, a list of frames: two bytes of length and one that fills them, with a byte
//! of flags before every eighth.
//!
//! Compared with a simple parser that has the whole stream:
//!
//! - the same frames come out, however the stream is cut and however late frames are taken, and then
//!   the same error, which stays;
//! - every byte is accounted for;
//! - memory depends on the bytes that arrived, not on a declared length, and a frame that is a slice
//!   of a piece keeps at most six times its size alive, unless it is small;
//! - taking frames as bytes and parsing them equals taking parsed frames.

use bytes::Bytes;
use tunnel_core::Side;
use tunnel_core::frame::codec::decode;
use tunnel_core::frame::framing::{Deframer, FrameError, FramingError, PREFIX_LEN, SMALL_FRAME};

use super::{Allow, Input, cut};

/// How many times its own bytes a frame may keep alive: the fraction below which `Deframer` copies.
const PINNED_TIMES: usize = 6;

/// The size limit of a stream of made-up frames, so that no run takes long.
const LONGEST: usize = 1 << 18;

pub(crate) fn run(data: &[u8], allow: Allow) {
    let mut input = Input::new(data);
    let choice = input.u8();
    let limit = input.number() as usize;
    let cuts = input.cuts();
    let stream = if choice & 1 == 0 {
        input.rest().to_vec()
    } else {
        made_up(&mut input)
    };
    let from = match choice & 2 {
        0 => Side::Caller,
        _ => Side::Handler,
    };
    let pieces = cut(&stream, &cuts);
    let (frames, error) = reference(&stream, limit);
    let every = 1 + usize::from(choice >> 2 & 3);
    pieces_give(&pieces, every, limit, &frames, error, allow);
    parsed_is_the_same(&pieces, from, limit, &frames, error);
}

fn made_up(input: &mut Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut count = 0;
    while !input.is_empty() && stream.len() < LONGEST {
        count += 1;
        stream.push(if count % 8 == 0 { input.u8() } else { 0 });
        let len = input.u16();
        stream.extend(u32::from(len).to_be_bytes());
        stream.resize(stream.len() + usize::from(len), input.u8());
    }
    stream
}

/// The frames of a stream, and the error that ends it.
fn reference(mut rest: &[u8], limit: usize) -> (Vec<&[u8]>, Option<FramingError>) {
    let mut frames = Vec::new();
    while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_LEN>() {
        let [flags, length @ ..] = *prefix;
        let size = u32::from_be_bytes(length);
        let error = match flags {
            0 if size as usize <= limit => None,
            0 => Some(FramingError::FrameTooLarge { size, limit }),
            1 => Some(FramingError::Compressed),
            flags => Some(FramingError::Flags(flags)),
        };
        if error.is_some() {
            return (frames, error);
        }
        let Some((frame, after)) = after.split_at_checked(size as usize) else {
            break;
        };
        frames.push(frame);
        rest = after;
    }
    (frames, None)
}

/// Pushes the pieces, and takes frames after every few of them.
fn pieces_give(
    pieces: &[Bytes],
    every: usize,
    limit: usize,
    expected: &[&[u8]],
    error: Option<FramingError>,
    allow: Allow,
) {
    let total: usize = pieces.iter().map(Bytes::len).sum();
    let mut seen = Vec::with_capacity(expected.len());
    let mut deframer = Deframer::new(limit);
    let (mut pushed, mut taken) = (0, 0);
    let mut failed = None;
    // Twice what arrived for the frame being gathered, once for copies, and its queue.
    allow(Some(3 * total + 64 * pieces.len() + 4096));
    for (i, piece) in pieces.iter().enumerate() {
        pushed += piece.len();
        deframer.push(piece.clone());
        if (i + 1) % every != 0 && i + 1 != pieces.len() {
            continue;
        }
        loop {
            match deframer.next() {
                Ok(Some(frame)) => {
                    taken += PREFIX_LEN + frame.len();
                    assert_eq!(deframer.buffered(), pushed - taken);
                    seen.push(frame);
                }
                Ok(None) => {
                    assert_eq!(failed, None, "an error is final");
                    assert_eq!(deframer.buffered(), pushed - taken);
                    assert_eq!(deframer.is_mid_frame(), pushed != taken);
                    break;
                }
                Err(error) => {
                    assert!(failed.is_none_or(|before| before == error));
                    assert!(!deframer.is_mid_frame(), "nothing is held");
                    failed = Some(error);
                    break;
                }
            }
        }
    }
    allow(None);
    assert_eq!(failed, error);
    assert_eq!(seen, expected);
    for frame in &seen {
        check_pinning(frame, pieces);
    }
}

fn check_pinning(frame: &Bytes, pieces: &[Bytes]) {
    if frame.len() < SMALL_FRAME {
        return;
    }
    let pinned = pieces
        .iter()
        .find(|piece| piece.as_ptr_range().contains(&frame.as_ptr()));
    if let Some(piece) = pinned {
        assert!(
            piece.len() <= PINNED_TIMES * frame.len(),
            "{} bytes keep {} alive",
            frame.len(),
            piece.len()
        );
    }
}

fn parsed_is_the_same(
    pieces: &[Bytes],
    from: Side,
    limit: usize,
    frames: &[&[u8]],
    error: Option<FramingError>,
) {
    let mut deframer = Deframer::new(limit);
    let mut expected = frames.iter();
    for piece in pieces {
        deframer.push(piece.clone());
        while let Some(next) = deframer.decode_next(from).transpose() {
            let Some(frame) = expected.next() else {
                let error = error.map(FrameError::Framing);
                assert_eq!(next.err(), error, "there is no other frame");
                return;
            };
            let alone = decode(from, Bytes::copy_from_slice(frame));
            assert_eq!(next, alone.map_err(FrameError::Decode));
        }
    }
    assert_eq!((expected.next(), error), (None, None));
}
