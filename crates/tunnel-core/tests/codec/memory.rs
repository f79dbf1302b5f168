//! The memory that decoding keeps alive and allocates.

use bytes::Bytes;
use tunnel_core::frame::codec::{DecodeError, MAX_ENTRIES, decode};
use tunnel_core::{Frame, FrameKind, Side, StreamId};

use crate::oracle::encoded;
use crate::wire::{delimited, key, varint};

#[test]
fn a_payload_is_left_where_it_is() {
    for kind in [
        FrameKind::MoreData(Bytes::from_static(b"payload")),
        FrameKind::Message {
            size: 99,
            data: Bytes::from_static(b"payload"),
            compressed: true,
        },
    ] {
        let frame = Frame {
            stream_id: StreamId::new(1),
            kind,
        };
        let bytes = encoded(Side::Caller, &frame);
        let addresses = bytes.as_ptr_range();
        match decode(Side::Caller, bytes.clone()).expect("a frame").kind {
            FrameKind::MoreData(data) | FrameKind::Message { data, .. } => {
                assert_eq!(data, "payload");
                assert!(addresses.contains(&data.as_ptr()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_a_payload_keeps_the_received_bytes_alive() {
    let frames: [(Side, &[u8]); 5] = [
        (Side::Caller, b"\x22\x00"),
        (Side::Caller, b"\x1a\x04\x08\x01\x12\x00"),
        (Side::Caller, b"\x12\x09\x0a\x07/method"),
        (Side::Handler, b"\x12\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v"),
        (
            Side::Handler,
            b"\x2a\x0a\x12\x08\x1a\x06\x0a\x01t\x12\x01\xff",
        ),
    ];
    for (from, bytes) in frames {
        let bytes = Bytes::from(bytes.to_vec());
        let frame = decode(from, bytes.clone()).expect("a frame");
        assert!(bytes.is_unique(), "{frame:?}");
    }
}

#[test]
fn a_payload_does_not_keep_the_padding_of_its_frame_alive() {
    let payload = b"payload".repeat(600);
    let padding = delimited(99, &[7; 100_000]);
    for frame in [
        [delimited(4, &payload), padding.clone()].concat(),
        [padding.clone(), delimited(4, &payload)].concat(),
        delimited(3, &[delimited(2, &payload), padding].concat()),
    ] {
        let bytes = Bytes::from(frame);
        let frame = decode(Side::Caller, bytes.clone()).expect("a frame");
        let (FrameKind::MoreData(data) | FrameKind::Message { data, .. }) = frame.kind else {
            panic!("no payload");
        };
        assert_eq!(data, payload);
        assert!(bytes.is_unique());
    }
}

#[test]
fn a_huge_declared_length_allocates_nothing() {
    // Reserving these lengths would abort or panic.
    for length in [1 << 40, 1 << 62, u64::MAX >> 1, u64::MAX] {
        let declared = |number| [varint(key(number, 2), 0), varint(length, 0)].concat();
        for (from, path) in [
            (Side::Caller, &[2][..]),
            (Side::Caller, &[2, 1]),
            (Side::Caller, &[2, 2]),
            (Side::Caller, &[2, 2, 1]),
            (Side::Caller, &[2, 2, 1, 1]),
            (Side::Caller, &[2, 2, 1, 2]),
            (Side::Caller, &[2, 2, 1, 2, 1]),
            (Side::Caller, &[3]),
            (Side::Caller, &[3, 2]),
            (Side::Caller, &[4]),
            (Side::Caller, &[5]),
            (Side::Caller, &[9]),
            (Side::Handler, &[5, 2]),
            (Side::Handler, &[5, 2, 2]),
            (Side::Handler, &[5, 2, 3]),
            (Side::Handler, &[5, 2, 3, 2]),
            (Side::Handler, &[6]),
            (Side::Handler, &[6, 1]),
        ] {
            let (&last, outer) = path.split_last().expect("a path");
            let inner = [declared(last), b"ab".to_vec()].concat();
            let bytes = outer
                .iter()
                .rev()
                .fold(inner, |inner, &n| delimited(n, &inner));
            assert_eq!(
                decode(from, bytes.into()),
                Err(DecodeError::Truncated),
                "{path:?}"
            );
        }
    }
}

#[test]
fn a_long_key_with_many_values_takes_no_more_memory_than_it_came_in() {
    // A copy of this key for each value would need 1 GB.
    let (key, values) = ("k".repeat(256 << 10), MAX_ENTRIES);
    let entry = [
        delimited(1, key.as_bytes()),
        delimited(2, &b"\x0a\x00".repeat(values)),
    ];
    let bytes = delimited(2, &delimited(1, &entry.concat()));
    let frame = decode(Side::Handler, bytes.clone().into()).expect("a frame");
    assert_eq!(encoded(Side::Handler, &frame), bytes);
    let FrameKind::Headers(md) = frame.kind else {
        panic!("not headers");
    };
    assert_eq!(md.len(), values);
    assert_eq!(md.size(), values * (key.len() + 32));
}
