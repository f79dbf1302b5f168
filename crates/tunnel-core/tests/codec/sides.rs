//! Each side has its own kinds of frames.

use bytes::{Bytes, BytesMut};
use tunnel_core::frame::codec::{decode, encode, encoded_len};
use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{Frame, FrameKind, FrameKindRef, FrameRef, Metadata, Side, Status, StreamId};

use crate::frames::borrowed;

fn kinds_of_the_other_side() -> Vec<(Side, FrameKind)> {
    let close = CloseStream {
        trailers: Metadata::new(),
        status: Status::OK,
    };
    vec![
        (Side::Caller, FrameKind::Settings(Settings::default())),
        (Side::Caller, FrameKind::Headers(Metadata::new())),
        (Side::Caller, FrameKind::Close(close)),
        (Side::Handler, FrameKind::NewStream(NewStream::default())),
        (Side::Handler, FrameKind::HalfClose),
        (Side::Handler, FrameKind::Cancel),
    ]
}

#[test]
fn a_kind_of_the_other_side_is_not_written() {
    for (from, kind) in kinds_of_the_other_side() {
        let frame = Frame {
            stream_id: StreamId::new(1),
            kind,
        };
        let frame = borrowed(&frame);
        assert_eq!(encoded_len(from, &frame), 0);
        let mut buf = BytesMut::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            encode(from, &frame, &mut buf);
        }))
        .is_err();
        assert_eq!(panicked, cfg!(debug_assertions), "{frame:?}");
        assert_eq!(buf, "");
    }
}

#[test]
fn the_same_number_means_another_kind_from_the_other_side() {
    let read = |from, bytes: &'static [u8]| {
        decode(from, Bytes::from_static(bytes))
            .expect("a frame")
            .kind
    };
    assert!(matches!(
        read(Side::Caller, b"\x12\x00"),
        FrameKind::NewStream(_)
    ));
    assert!(matches!(
        read(Side::Handler, b"\x12\x00"),
        FrameKind::Headers(_)
    ));
    assert!(matches!(
        read(Side::Caller, b"\x2a\x00"),
        FrameKind::HalfClose
    ));
    assert!(matches!(
        read(Side::Handler, b"\x2a\x00"),
        FrameKind::Close(_)
    ));
    assert!(matches!(read(Side::Caller, b"\x32\x00"), FrameKind::Cancel));
    assert!(matches!(
        read(Side::Handler, b"\x32\x00"),
        FrameKind::Settings(_)
    ));
}

#[test]
fn a_payload_borrowed_for_sending_needs_no_owned_frame() {
    let frame = FrameRef {
        stream_id: StreamId::new(1),
        kind: FrameKindRef::MoreData(b"ab"),
    };
    let mut buf = BytesMut::new();
    encode(Side::Caller, &frame, &mut buf);
    assert_eq!(decode(Side::Caller, buf.freeze()), Ok(frame.to_owned()));
}
