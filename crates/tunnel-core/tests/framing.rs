//! Frames on a byte stream: the same frames come out, however the stream is cut.

#[path = "support/frames.rs"]
mod frames;

use bytes::{Bytes, BytesMut};
use frames::{borrowed, sent};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tunnel_core::frame::codec::{DecodeError, decode, encode};
use tunnel_core::frame::framing::{
    Deframer, FrameError, FrameWriter, FramingError, PREFIX_LEN, SMALL_FRAME,
};
use tunnel_core::{Frame, FrameKindRef, FrameRef, FrameSink, Side, StreamId};

fn encoded(from: Side, frame: &Frame) -> Bytes {
    let mut buf = BytesMut::new();
    encode(from, &borrowed(frame), &mut buf);
    buf.freeze()
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&[0], &(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// Cuts a stream at these places; equal places make empty pieces.
fn cut(stream: &[u8], at: &[Index]) -> Vec<Bytes> {
    let mut places: Vec<usize> = at.iter().map(|at| at.index(stream.len() + 1)).collect();
    places.sort_unstable();
    places.push(stream.len());
    let mut start = 0;
    let pieces = places.into_iter().map(|end| {
        let piece = Bytes::copy_from_slice(&stream[start..end]);
        start = end;
        piece
    });
    pieces.collect()
}

/// Frames of one side.
fn frames_of_one_side() -> impl Strategy<Value = (Side, Vec<Frame>)> {
    let side = prop_oneof![Just(Side::Caller), Just(Side::Handler)];
    (side, vec(sent(), 0..8)).prop_map(|(side, frames)| {
        let of_side = frames.into_iter().filter(|(from, _)| *from == side);
        (side, of_side.map(|(_, frame)| frame).collect())
    })
}

proptest! {
    #[test]
    fn the_same_frames_come_out_whatever_the_pieces(
        (from, frames) in frames_of_one_side(),
        cuts in vec(any::<Index>(), 0..30),
        eager in any::<bool>(),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            let before = stream.len();
            let counted = FrameWriter::new(from, &mut stream).frame(borrowed(frame));
            prop_assert_eq!(counted, stream.len() - before);
            prop_assert_eq!(&stream[before..], &framed(&encoded(from, frame)));
        }

        let mut deframer = Deframer::new(1 << 20);
        let (mut pushed, mut taken) = (0, 0);
        let mut seen = Vec::new();
        let pieces = cut(&stream, &cuts);
        let last = pieces.len() - 1;
        for (i, piece) in pieces.into_iter().enumerate() {
            pushed += piece.len();
            deframer.push(piece);
            // Sometimes several pieces are queued.
            while (eager || i % 3 == 2 || i == last)
                && let Some(bytes) = deframer.next().expect("no error")
            {
                taken += PREFIX_LEN + bytes.len();
                prop_assert_eq!(deframer.buffered(), pushed - taken);
                seen.push(bytes);
            }
            prop_assert_eq!(deframer.buffered(), pushed - taken);
            prop_assert_eq!(deframer.is_mid_frame(), pushed != taken);
        }
        prop_assert!(!deframer.is_mid_frame());
        let expected: Vec<_> = frames.iter().map(|frame| encoded(from, frame)).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn deframing_and_decoding_are_one_step(
        (from, frames) in frames_of_one_side(),
        cuts in vec(any::<Index>(), 0..5),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            FrameWriter::new(from, &mut stream).frame(borrowed(frame));
        }
        let mut deframer = Deframer::new(1 << 20);
        let mut seen = Vec::new();
        for piece in cut(&stream, &cuts) {
            deframer.push(piece);
            while let Some(frame) = deframer.decode_next(from).expect("a frame") {
                seen.push(frame);
            }
        }
        let expected = frames.iter().map(|frame| decode(from, encoded(from, frame)).expect("ours"));
        prop_assert_eq!(seen, expected.collect::<Vec<_>>());
    }

    #[test]
    fn large_bodies_come_out_whatever_the_pieces(
        sizes in vec(0..70_000usize, 1..5),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let body = |(i, len): (usize, &usize)| vec![i as u8; *len];
        let bodies: Vec<_> = sizes.iter().enumerate().map(body).collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        let mut deframer = Deframer::new(70_000);
        let mut seen = Vec::new();
        for piece in cut(&stream, &cuts) {
            deframer.push(piece);
            while let Some(bytes) = deframer.next().expect("no error") {
                seen.push(bytes);
            }
        }
        prop_assert_eq!(seen, bodies);
    }

    #[test]
    fn arbitrary_bytes_never_yield_more_than_arrived(
        stream in vec(prop_oneof![3 => Just(0), 1 => any::<u8>()], 0..200),
        cuts in vec(any::<Index>(), 0..10),
        max in 0..300usize,
    ) {
        let mut deframer = Deframer::new(max);
        let (mut pushed, mut taken) = (0, 0);
        for piece in cut(&stream, &cuts) {
            pushed += piece.len();
            deframer.push(piece);
            while let Ok(Some(bytes)) = deframer.next() {
                prop_assert!(bytes.len() <= max);
                taken += PREFIX_LEN + bytes.len();
                prop_assert!(taken <= pushed);
            }
        }
    }
}

#[test]
fn a_frame_of_the_limit_passes_and_one_byte_more_does_not() {
    for limit in [0, 1, 1000] {
        let next = |len: usize| {
            let mut deframer = Deframer::new(limit);
            deframer.push(framed(&vec![1; len]).into());
            deframer.next()
        };
        assert_eq!(next(limit), Ok(Some(vec![1; limit].into())));
        let size = limit as u32 + 1;
        let error = FramingError::FrameTooLarge { size, limit };
        assert_eq!(next(limit + 1), Err(error));
    }
}

#[test]
fn a_frame_too_large_is_refused_by_its_prefix_alone() {
    let mut deframer = Deframer::new(9);
    deframer.push(Bytes::from_static(b"\0\0\0\0"));
    assert_eq!(deframer.next(), Ok(None));
    deframer.push(Bytes::from_static(b"\x0a"));
    let error = FramingError::FrameTooLarge { size: 10, limit: 9 };
    assert_eq!(deframer.next(), Err(error));
    assert_eq!(error.to_string(), "a frame of 10 bytes, the limit is 9");
}

#[test]
fn frames_before_a_broken_one_are_taken_first_and_none_after_it() {
    let mut deframer = Deframer::new(9);
    deframer.push(
        [framed(b"a"), vec![1, 0, 0, 0, 0], framed(b"b")]
            .concat()
            .into(),
    );
    assert_eq!(deframer.next(), Ok(Some(Bytes::from_static(b"a"))));
    assert_eq!(deframer.next(), Err(FramingError::Compressed));
    deframer.push(framed(b"c").into());
    assert_eq!(deframer.next(), Err(FramingError::Compressed));
}

#[test]
fn flags_other_than_zero_are_refused() {
    let next = |flags| {
        let mut deframer = Deframer::new(9);
        deframer.push(vec![flags, 0, 0, 0, 0].into());
        deframer.next()
    };
    assert_eq!(next(0), Ok(Some(Bytes::new())));
    assert_eq!(next(1), Err(FramingError::Compressed));
    assert_eq!(next(2), Err(FramingError::Flags(2)));
    assert_eq!(next(0x81), Err(FramingError::Flags(0x81)));
}

#[test]
fn a_broken_frame_and_a_broken_stream_are_different_errors() {
    let mut deframer = Deframer::new(9);
    deframer.push(framed(b"\x08").into());
    let error = FrameError::Decode(DecodeError::Truncated);
    assert_eq!(deframer.decode_next(Side::Caller), Err(error));
    deframer.push(Bytes::from_static(&[7; 5]));
    let error = FrameError::Framing(FramingError::Flags(7));
    assert_eq!(deframer.decode_next(Side::Caller), Err(error));
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_told_from_one_that_ends_between_frames() {
    let stream = [framed(b"abc"), framed(b"")].concat();
    for end in 0..=stream.len() {
        let mut deframer = Deframer::new(9);
        deframer.push(Bytes::copy_from_slice(&stream[..end]));
        while deframer.next().expect("no error").is_some() {}
        let between = [0, 8, 13].contains(&end);
        assert_eq!(deframer.is_mid_frame(), !between, "{end}");
    }
}

#[test]
fn the_writer_leaves_nothing_of_a_frame_that_its_side_cannot_send() {
    let mut buf = BytesMut::from("before");
    let frame = FrameRef {
        stream_id: StreamId::new(1),
        kind: FrameKindRef::Cancel,
    };
    let counted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        FrameWriter::new(Side::Handler, &mut buf).frame(frame)
    }));
    if cfg!(debug_assertions) {
        assert!(counted.is_err());
    } else {
        assert_eq!(counted.expect("no panic"), 0);
    }
    assert_eq!(buf, "before");
}

#[test]
fn chunks_are_let_go_as_soon_as_they_are_used_up() {
    let body = [7; 3000];
    let stream = framed(&body);
    let mut deframer = Deframer::new(usize::MAX);
    let (first, second) = stream.split_at(1000);
    let (first, second) = (Bytes::from(first.to_vec()), Bytes::from(second.to_vec()));

    deframer.push(first.clone());
    assert_eq!(deframer.next(), Ok(None));
    assert!(first.is_unique());
    deframer.push(second.clone());
    let frame = deframer.next();
    assert!(second.is_unique());
    assert_eq!(frame, Ok(Some(Bytes::copy_from_slice(&body))));
}

/// Whether a frame of this size is copied out of its chunk, where it is the first.
fn is_copied(frame: usize, chunk: usize) -> bool {
    let mut bytes = framed(&vec![7; frame]);
    bytes.resize(chunk, 0);
    let chunk = Bytes::from(bytes);
    let inside = chunk.as_ptr_range();
    let mut deframer = Deframer::new(usize::MAX);
    deframer.push(chunk.clone());
    let frame = deframer.next().expect("a frame").expect("a frame");
    assert!(frame.iter().all(|byte| *byte == 7));
    !inside.contains(&frame.as_ptr())
}

#[test]
fn a_frame_is_copied_when_it_would_pin_more_than_six_times_its_size() {
    let kb = 1024;
    assert!(!is_copied(16 * kb, 16 * kb + PREFIX_LEN));
    assert!(!is_copied(16 * kb, 96 * kb));
    assert!(is_copied(16 * kb - 1, 96 * kb));
    assert!(is_copied(16 * kb, 96 * kb + 1));
    assert!(is_copied(16 * kb, 1024 * kb));
    // Small frames are copied by their user.
    assert!(is_copied(SMALL_FRAME, 64 * kb));
    assert!(!is_copied(SMALL_FRAME - 1, 64 * kb));
    assert!(!is_copied(1, 64 * kb));
}

#[test]
fn the_last_frame_of_a_chunk_counts_as_pinning_the_whole_chunk() {
    let chunk = Bytes::from([framed(&[1; 100_000]), framed(&[2; 5000])].concat());
    let mut deframer = Deframer::new(usize::MAX);
    deframer.push(chunk.clone());
    let first = deframer.next().expect("a frame").expect("a frame");
    let second = deframer.next().expect("a frame").expect("a frame");
    assert!(!first.is_unique());
    assert!(second.is_unique());
    assert_eq!(second, vec![2; 5000]);
}

#[test]
fn an_empty_chunk_changes_nothing() {
    let body = Bytes::from(vec![7; 2000]);
    let mut deframer = Deframer::new(usize::MAX);
    let prefix = Bytes::from(framed(&body)).split_to(PREFIX_LEN);
    for chunk in [Bytes::new(), prefix, Bytes::new()] {
        deframer.push(chunk);
        assert_eq!(deframer.next(), Ok(None));
    }
    deframer.push(Bytes::new());
    deframer.push(body.clone());
    let frame = deframer.next().expect("a frame").expect("a frame");
    assert_eq!(frame.as_ptr(), body.as_ptr());
}

#[test]
fn an_empty_frame_pins_nothing() {
    let chunk = Bytes::from(framed(&[]));
    let mut deframer = Deframer::new(0);
    deframer.push(chunk.clone());
    let frame = deframer.next();
    assert_eq!(frame, Ok(Some(Bytes::new())));
    assert!(chunk.is_unique());
}

#[test]
fn nothing_is_held_after_an_error() {
    let chunk = Bytes::from([&framed(&[7; 10])[..], &[9; 100]].concat());
    let mut deframer = Deframer::new(9);
    deframer.push(chunk.clone());
    deframer.push(chunk.clone());
    let error = FramingError::FrameTooLarge { size: 10, limit: 9 };
    for _ in 0..2 {
        assert_eq!(deframer.next(), Err(error));
        assert_eq!(deframer.buffered(), 0);
        assert!(!deframer.is_mid_frame());
        assert!(chunk.is_unique());
        deframer.push(chunk.clone());
    }
}

#[test]
fn compressed_frames_are_handed_to_the_hook_and_others_are_not() {
    // Each byte stands for itself twice.
    let twice = |frame: &[u8], limit: usize| {
        let inflated: Vec<u8> = frame.iter().flat_map(|&byte| [byte; 2]).collect();
        match inflated.len() <= limit {
            true => Ok(inflated.into()),
            false => Err(FramingError::InflatedFrameTooLarge { limit }),
        }
    };
    let flagged = |body: &[u8]| {
        let mut framed = framed(body);
        framed[0] = 1;
        framed
    };
    let stream = [framed(b"ab"), flagged(b"cd"), flagged(b""), framed(b"e")].concat();
    for cut in 1..stream.len() {
        let mut deframer = Deframer::new(5).decompress_with(Box::new(twice));
        let mut frames = Vec::new();
        for piece in stream.chunks(cut) {
            deframer.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = deframer.next().expect("intact") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&b"ab"[..], b"ccdd", b"", b"e"]);
    }
    let mut deframer = Deframer::new(5).decompress_with(Box::new(twice));
    deframer.push(
        [framed(b"a"), flagged(b"abc"), framed(b"b")]
            .concat()
            .into(),
    );
    assert_eq!(deframer.next(), Ok(Some(Bytes::from_static(b"a"))));
    let error = FramingError::InflatedFrameTooLarge { limit: 5 };
    assert_eq!(deframer.next(), Err(error));
    assert_eq!(deframer.next(), Err(error));
}
