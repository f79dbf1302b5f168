//! A flat list here, a map on the wire.

use bytes::Bytes;
use tunnel_core::frame::codec::decode;
use tunnel_core::{Frame, FrameKind, Metadata, Side};

use crate::bytes_by_hand::list_of;
use crate::oracle::encoded;
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

/// What is read from the bytes of metadata.
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

    // The same far beyond the number of keys that are compared one by one.
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
            &Frame { stream_id: 0, kind },
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

    // At both sides of the number of keys that are compared one by one.
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

/// Anything quadratic would take hours here.
#[test]
fn hundreds_of_thousands_of_entries_take_linear_time() {
    let n = 300_000;
    let tiny = b"\x0a\x00".repeat(n);
    assert_eq!(headers(tiny), []);
    let distinct: Vec<u8> = (0..n).flat_map(|i| entry(&i.to_string(), &[""])).collect();
    assert_eq!(headers(distinct).len(), n);
    let replaced: Vec<u8> = (0..n)
        .flat_map(|i| entry(["a", "b"][i % 2], &[""]))
        .collect();
    assert_eq!(headers(replaced).len(), 2);

    // One entry in each of many pieces of one metadata.
    let pieces: Vec<u8> = (0..n)
        .flat_map(|i| delimited(2, &entry(&(i / 2).to_string(), &[""])))
        .collect();
    let frame = decode(Side::Handler, pieces.into()).expect("a frame");
    assert!(matches!(frame.kind, FrameKind::Headers(md) if md.len() == n / 2));

    let details = delimited(5, &delimited(2, &b"\x1a\x00".repeat(n)));
    let frame = decode(Side::Handler, details.into()).expect("a frame");
    assert!(matches!(frame.kind, FrameKind::Close(close) if close.status.details.len() == n));

    let md: Metadata = (0..n).map(|i| ((i % (n / 2)).to_string(), "")).collect();
    let kind = FrameKind::Headers(md);
    let bytes = encoded(Side::Handler, &Frame { stream_id: 0, kind });
    assert_eq!(headers_of(bytes).len(), n);
}
