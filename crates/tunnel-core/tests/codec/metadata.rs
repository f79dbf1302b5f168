//! Metadata: a flat list in the core, a map on the wire.

use bytes::Bytes;
use tunnel_core::frame::CloseStream;
use tunnel_core::frame::codec::{MAX_DETAILS, MAX_ENTRIES, decode};
use tunnel_core::{Frame, FrameKind, Metadata, Side, StreamId};

use crate::bytes_by_hand::list_of;
use crate::oracle::{Wire, encoded, frame};
use crate::wire::delimited;

fn headers_of(frame: Bytes) -> Metadata {
    match decode(Side::Handler, frame).expect("a frame").kind {
        FrameKind::Headers(md) => md,
        other => panic!("{other:?}"),
    }
}

fn owned(md: &Metadata) -> Vec<(String, String)> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    md.iter().map(owned).collect()
}

/// The metadata read from these bytes.
fn headers(bytes: Vec<u8>) -> Vec<(String, String)> {
    owned(&headers_of(delimited(2, &bytes).into()))
}

fn entry(key: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<u8> = values
        .iter()
        .flat_map(|value| delimited(1, value.as_bytes()))
        .collect();
    let entry = [delimited(1, key.as_bytes()), delimited(2, &values)].concat();
    delimited(1, &entry)
}

fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    entries.iter().map(owned).collect()
}

#[test]
fn metadata_keeps_the_order_of_the_wire() {
    let wire = [
        entry("b", &["2", "1"]),
        entry("", &["x"]),
        entry("a", &[""]),
    ];
    assert_eq!(
        headers(wire.concat()),
        pairs(&[("b", "2"), ("b", "1"), ("", "x"), ("a", "")])
    );
}

#[test]
fn of_two_map_entries_with_one_key_the_last_counts() {
    let wire = [
        entry("b", &["old", "older"]),
        entry("a", &["1"]),
        entry("c", &["gone"]),
        entry("b", &["new"]),
        entry("c", &[]),
    ];
    assert_eq!(headers(wire.concat()), pairs(&[("a", "1"), ("b", "new")]));

    // The same with far more keys than are compared one by one.
    let many: Vec<_> = (0..200)
        .map(|i| (format!("k{}", i % 150), i.to_string()))
        .collect();
    let wire: Vec<u8> = many.iter().flat_map(|(k, v)| entry(k, &["x", v])).collect();
    let expected: Vec<_> = many[50..]
        .iter()
        .flat_map(|(k, v)| [(k.clone(), "x".to_owned()), (k.clone(), v.clone())])
        .collect();
    assert_eq!(headers(wire), expected);
}

#[test]
fn the_values_of_a_key_that_comes_back_are_written_as_one_entry() {
    let written = |md: &Metadata| {
        let kind = FrameKind::Headers(md.clone());
        owned(&headers_of(encoded(
            Side::Handler,
            &Frame {
                stream_id: StreamId::new(0),
                kind,
            },
        )))
    };
    let md = list_of(&[
        ("b", "1"),
        ("a", "2"),
        ("b", "3"),
        ("c", "4"),
        ("a", "5"),
        ("b", "6"),
    ]);
    assert_eq!(
        written(&md),
        pairs(&[
            ("b", "1"),
            ("b", "3"),
            ("b", "6"),
            ("a", "2"),
            ("a", "5"),
            ("c", "4")
        ])
    );

    // Around the number of keys up to which they are compared one by one.
    for distinct in [15, 16, 17, 18, 100] {
        for again in [0, distinct / 2, distinct - 1] {
            let entry = |i: usize, value: &str| (format!("k{i}"), value.to_owned());
            let mut md: Vec<_> = (0..distinct).map(|i| entry(i, "first")).collect();
            md.push(entry(distinct, "between"));
            md.push(entry(again, "second"));
            let expected: Vec<_> = (0..=distinct)
                .flat_map(|i| {
                    let first = entry(i, if i == distinct { "between" } else { "first" });
                    let second = (i == again).then(|| entry(i, "second"));
                    [first].into_iter().chain(second)
                })
                .collect();
            assert_eq!(written(&md.iter().cloned().collect()), expected);
        }
    }
}

#[test]
fn a_list_as_long_as_the_limit_is_kept() {
    let distinct: Vec<_> = (0..MAX_ENTRIES)
        .map(|i| (i.to_string(), String::new()))
        .collect();
    let wire: Vec<u8> = distinct.iter().flat_map(|(k, v)| entry(k, &[v])).collect();
    assert_eq!(headers(wire), distinct);

    let details = closed(&b"\x1a\x00".repeat(MAX_DETAILS));
    assert_eq!(details.status.details.len(), MAX_DETAILS);
    assert!(!details.trailers.is_over_limit());
}

/// Quadratic time would take hours here.
#[test]
fn a_list_over_the_limit_is_read_to_its_end_and_not_kept() {
    let n = 300_000;
    let entries = |entry: &dyn Fn(usize) -> Vec<u8>| (0..n).flat_map(entry).collect::<Vec<u8>>();
    let lists = [
        b"\x0a\x00".repeat(n),
        entries(&|i| entry(&i.to_string(), &[""])),
        entries(&|i| entry(["a", "b"][i % 2], &[""])),
        entry("k", &vec![""; n]),
    ];
    let mut frames: Vec<_> = lists.map(|list| delimited(2, &list)).into();
    // One entry in each of many pieces of one metadata.
    frames.push(entries(&|i| delimited(2, &entry(&i.to_string(), &[""]))));
    for frame in frames {
        let md = headers_of(frame.clone().into());
        assert!(md.is_over_limit() && md.is_empty());
        assert_eq!(md.size(), usize::MAX);

        let broken = [frame, vec![0x0a]].concat();
        assert!(decode(Side::Handler, broken.into()).is_err());
    }

    let close = closed(&b"\x1a\x00".repeat(n));
    assert_eq!(close.status.details, []);
    assert!(close.trailers.is_over_limit());
}

/// The end of a stream with these fields of its status.
fn closed(status: &[u8]) -> CloseStream {
    let bytes = delimited(5, &delimited(2, status));
    match decode(Side::Handler, bytes.into()).expect("a frame").kind {
        FrameKind::Close(close) => close,
        other => panic!("{other:?}"),
    }
}

#[test]
fn long_lists_are_written_in_linear_time() {
    let n = 300_000;
    let md: Metadata = (0..n).map(|i| ((i % (n / 2)).to_string(), "")).collect();
    let kind = FrameKind::Headers(md);
    let bytes = encoded(
        Side::Handler,
        &Frame {
            stream_id: StreamId::new(0),
            kind,
        },
    );
    let theirs = Wire::parse(Side::Handler, bytes).expect("prost reads it");
    assert!(matches!(frame(theirs).kind, FrameKind::Headers(md) if md.len() == n));
}
