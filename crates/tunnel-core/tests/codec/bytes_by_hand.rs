//! The bytes of every kind of frame, and every way to break them.

use bytes::Bytes;
use tunnel_core::frame::codec::{DecodeError, decode};
use tunnel_core::frame::{CloseStream, NewStream, Settings};
use tunnel_core::{Code, Frame, FrameKind, Metadata, Side, Status, StatusDetail, StreamId};

use crate::oracle::{Wire, agree, encoded};
use crate::wire::delimited;

fn golden(from: Side, stream_id: i64, kind: FrameKind, bytes: &[u8]) {
    let stream_id = StreamId::new(stream_id);
    let frame = Frame { stream_id, kind };
    assert_eq!(encoded(from, &frame), bytes, "{frame:?}");
    assert_eq!(
        decode(from, Bytes::copy_from_slice(bytes)).expect("a frame"),
        frame
    );
}

pub(crate) fn list_of(entries: &[(&str, &str)]) -> Metadata {
    entries.iter().copied().collect()
}

#[test]
fn settings_have_these_bytes() {
    let settings = |revisions: &[i32], initial_window| {
        FrameKind::Settings(Settings {
            revisions: revisions.to_vec(),
            initial_window,
        })
    };
    let minus_one = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    golden(
        Side::Handler,
        -1,
        settings(&[0, 1], 65_536),
        &[&minus_one[..], b"\x32\x08\x0a\x02\x00\x01\x10\x80\x80\x04"].concat(),
    );
    golden(Side::Handler, 0, settings(&[], 0), b"\x32\x00");
    golden(
        Side::Handler,
        0,
        settings(&[-1], 0),
        b"\x32\x0c\x0a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    );
}

#[test]
fn a_new_stream_has_these_bytes() {
    golden(
        Side::Caller,
        1,
        FrameKind::NewStream(NewStream {
            method: "/a.B/C".into(),
            headers: list_of(&[("k", "v"), ("k", ""), ("", "x")]),
            initial_window: 65_536,
            revision: 1,
        }),
        b"\x08\x01\x12\x23\
          \x0a\x06/a.B/C\
          \x12\x13\
            \x0a\x0a\x0a\x01k\x12\x05\x0a\x01v\x0a\x00\
            \x0a\x05\x12\x03\x0a\x01x\
          \x18\x80\x80\x04\
          \x20\x01",
    );
    // Empty headers are written too, as by the Go caller.
    golden(
        Side::Caller,
        0,
        FrameKind::NewStream(NewStream::default()),
        b"\x12\x02\x12\x00",
    );
}

#[test]
fn response_headers_have_these_bytes() {
    golden(
        Side::Handler,
        300,
        FrameKind::Headers(list_of(&[("k", "v")])),
        b"\x08\xac\x02\x12\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v",
    );
    golden(
        Side::Handler,
        3,
        FrameKind::Headers(Metadata::new()),
        b"\x08\x03\x12\x00",
    );
}

#[test]
fn data_has_the_same_bytes_from_both_sides() {
    for from in [Side::Caller, Side::Handler] {
        let message = |size, data: &'static [u8]| FrameKind::Message {
            size,
            data: Bytes::from_static(data),
            compressed: size == 301,
        };
        golden(
            from,
            5,
            message(301, b"abc"),
            b"\x08\x05\x1a\x0a\x08\xad\x02\x12\x03abc\x18\x01",
        );
        golden(
            from,
            5,
            message(300, b"abc"),
            b"\x08\x05\x1a\x08\x08\xac\x02\x12\x03abc",
        );
        golden(from, 5, message(0, b""), b"\x08\x05\x1a\x00");
        golden(
            from,
            5,
            FrameKind::MoreData(Bytes::from_static(b"de")),
            b"\x08\x05\x22\x02de",
        );
        golden(
            from,
            5,
            FrameKind::MoreData(Bytes::new()),
            b"\x08\x05\x22\x00",
        );
    }
}

#[test]
fn window_updates_have_the_same_bytes_from_both_sides() {
    for from in [Side::Caller, Side::Handler] {
        golden(
            from,
            5,
            FrameKind::WindowUpdate(u32::MAX),
            b"\x08\x05\x38\xff\xff\xff\xff\x0f",
        );
        golden(from, 5, FrameKind::WindowUpdate(0), b"\x08\x05\x38\x00");
    }
}

#[test]
fn half_close_and_cancel_have_these_bytes() {
    golden(Side::Caller, 2, FrameKind::HalfClose, b"\x08\x02\x2a\x00");
    golden(Side::Caller, 2, FrameKind::Cancel, b"\x08\x02\x32\x00");
}

#[test]
fn a_close_has_these_bytes() {
    let close = |trailers: &[(&str, &str)], status| {
        FrameKind::Close(CloseStream {
            trailers: list_of(trailers),
            status,
        })
    };
    golden(
        Side::Handler,
        2,
        close(
            &[("k", "v")],
            Status {
                code: Code::NotFound,
                message: "no".into(),
                details: vec![StatusDetail {
                    type_url: "t".into(),
                    value: Bytes::from_static(b"\xff"),
                }],
            },
        ),
        b"\x08\x02\x2a\x1c\
          \x0a\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v\
          \x12\x0e\x08\x05\x12\x02no\x1a\x06\x0a\x01t\x12\x01\xff",
    );
    // OK is empty on the wire, unless it has a message.
    golden(
        Side::Handler,
        2,
        close(&[], Status::OK),
        b"\x08\x02\x2a\x00",
    );
    golden(
        Side::Handler,
        2,
        close(&[], Status::new(Code::Ok, "fine")),
        b"\x08\x02\x2a\x08\x12\x06\x12\x04fine",
    );
}

#[test]
fn a_code_that_does_not_exist_is_unknown() {
    for bytes in [
        &b"\x2a\x04\x12\x02\x08\x11"[..],
        b"\x2a\x0d\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        let frame = decode(Side::Handler, Bytes::copy_from_slice(bytes)).expect("a frame");
        let FrameKind::Close(close) = frame.kind else {
            panic!("{frame:?}");
        };
        assert_eq!(close.status.code, Code::Unknown);
    }
}

#[test]
fn a_frame_without_a_known_kind_is_unknown() {
    let unknown = |id| Frame {
        stream_id: StreamId::new(id),
        kind: FrameKind::Unknown,
    };
    for from in [Side::Caller, Side::Handler] {
        let read = |bytes: &'static [u8]| decode(from, Bytes::from_static(bytes));
        assert_eq!(read(b""), Ok(unknown(0)));
        assert_eq!(read(b"\x08\x09"), Ok(unknown(9)));
        assert_eq!(read(b"\x08\x09\x42\x03abc"), Ok(unknown(9)));
    }
}

#[test]
fn of_two_kinds_the_later_counts_and_of_one_kind_the_parts_are_merged() {
    let read = |bytes: &'static [u8]| {
        let frame = decode(Side::Caller, Bytes::from_static(bytes));
        frame.expect("a frame").kind
    };
    let message = |size, data: &'static [u8]| FrameKind::Message {
        size,
        data: Bytes::from_static(data),
        compressed: false,
    };
    // The size alone, then the data alone; with a half-close between them.
    assert_eq!(read(b"\x1a\x02\x08\x05\x1a\x03\x12\x01a"), message(5, b"a"));
    assert_eq!(
        read(b"\x1a\x02\x08\x05\x2a\x00\x1a\x03\x12\x01a"),
        message(0, b"a")
    );
    assert_eq!(read(b"\x1a\x02\x08\x05\x2a\x00"), FrameKind::HalfClose);
}

#[test]
fn broken_bytes_are_refused_with_the_reason() {
    use DecodeError::*;
    let wrong = |field, wire_type| WireType { field, wire_type };
    let cases: &[(&[u8], DecodeError)] = &[
        (b"\x08", Truncated),
        (b"\x08\x80", Truncated),
        (b"\x22\x05abcd", Truncated),
        (b"\x45\x01\x02\x03", Truncated),
        (b"\x41\x01\x02\x03\x04\x05\x06\x07", Truncated),
        // The inner field ends inside the frame but outside its message.
        (b"\x1a\x03\x12\x02ab", Truncated),
        (b"\x43", Truncated),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Varint),
        (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", Varint),
        (b"\x02\x00", FieldNumber),
        (b"\x80\x80\x80\x80\x10\x00", FieldNumber),
        // Its low 32 bits would be field 1.
        (b"\x88\x80\x80\x80\x10\x00", FieldNumber),
        (b"\x0a\x00", wrong(1, 2)),
        (b"\x18\x00", wrong(3, 0)),
        (b"\x1b\x1c", wrong(3, 3)),
        (b"\x3a\x00", wrong(7, 2)),
        (b"\x46", wrong(8, 6)),
        (b"\x47", wrong(8, 7)),
        (b"\x44", Group),
        (b"\x43\x4c", Group),
        (b"\x12\x03\x0a\x01\xff", Utf8 { field: 1 }),
        (
            b"\x12\x09\x12\x07\x0a\x05\x12\x03\x0a\x01\xff",
            Utf8 { field: 1 },
        ),
        // Also in a part that a later one replaces.
        (b"\x12\x03\x0a\x01\xff\x2a\x00", Utf8 { field: 1 }),
    ];
    for &(bytes, error) in cases {
        let bytes = Bytes::from_static(bytes);
        assert!(Wire::parse(Side::Caller, bytes.clone()).is_err());
        assert_eq!(decode(Side::Caller, bytes.clone()), Err(error), "{bytes:?}");
    }
}

#[test]
fn unknown_groups_may_nest_as_deep_as_prost_lets_them() {
    // At the top level and in the innermost message.
    let at = |levels: usize| [vec![0x7b; levels], vec![0x7c; levels]].concat();
    let inside = |path: &[u32], levels| {
        let inner = at(levels);
        path.iter()
            .rev()
            .fold(inner, |inner, &n| delimited(n, &inner))
    };
    for (from, path) in [
        (Side::Caller, &[][..]),
        (Side::Caller, &[5]),
        (Side::Caller, &[2, 2, 1, 2]),
        (Side::Handler, &[2, 1, 2]),
        (Side::Handler, &[5, 2, 3]),
    ] {
        let limit = 100 - path.len();
        let read = |levels| decode(from, inside(path, levels).into());
        assert!(read(limit).is_ok(), "{path:?}");
        assert_eq!(read(limit + 1), Err(DecodeError::Depth), "{path:?}");
        for levels in [limit, limit + 1] {
            agree(from, &inside(path, levels).into()).expect("prost agrees");
        }
    }
}
