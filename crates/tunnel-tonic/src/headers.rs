//! gRPC metadata between an HTTP header map and a tunnel's frames.
//!
//! Values on the wire are UTF-8 strings. Each byte of a `-bin` value is sent as the code point of the
//! same number (Latin-1). On receipt, a value whose code points are all below 256 becomes those bytes,
//! and any other value is taken as its UTF-8 bytes, as the Go library sends it. Text values that are
//! not UTF-8 are sent in the same way behind a mark, if both ends offer it.
//!
//! Reserved keys, which belong to the connection, are never carried. The two keys that describe the
//! compression of messages are carried where the messages are.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tunnel_core::{Metadata, NOT_PROCESSED_KEY};

/// Reads base64 with and without padding, as gRPC requires; writes it without.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BINARY_SUFFIX: &str = "-bin";

/// The most entries of a peer's metadata that an application sees. A header map panics with more than
/// about 24,000.
const MAX_ENTRIES: usize = 8192;

/// The key that names the encoding of compressed messages.
pub(crate) const ENCODING: &str = "grpc-encoding";

/// The key that lists the encodings that its sender accepts.
pub(crate) const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Whether a key describes the compression of messages.
fn is_encoding(key: &str) -> bool {
    matches!(key, ENCODING | ACCEPT_ENCODING)
}

/// Whether a key belongs to the connection and not to the call. Keys come lower-cased.
fn is_reserved(key: &str) -> bool {
    match key {
        "te" | "content-type" | "host" => true,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "grpc-status" | "grpc-message" | "grpc-status-details-bin" => true,
        "grpc-message-type" => true,
        // Set by the tunnel only: from a handler it would cause a retry.
        NOT_PROCESSED_KEY => true,
        _ => key.starts_with(':'),
    }
}

/// The metadata of a header map, as frames carry it.
pub(crate) fn to_wire(headers: &HeaderMap) -> Metadata {
    to_wire_and(headers, |_, _| {})
}

/// Like [`to_wire`], and passes each reserved key, which is left out, to `reserved`.
pub(crate) fn to_wire_and<'a>(
    headers: &'a HeaderMap,
    mut reserved: impl FnMut(&'a str, &'a HeaderValue),
) -> Metadata {
    // Memory is allocated for the first entry that is carried: usually there is none.
    let mut md = None;
    for (at, (name, value)) in headers.iter().enumerate() {
        let key = name.as_str();
        if is_reserved(key) {
            reserved(key, value);
            continue;
        }
        let md = md.get_or_insert_with(|| {
            let left = headers.len() - at;
            Metadata::with_capacity(left, 64 * left.min(16))
        });
        if key.ends_with(BINARY_SUFFIX) {
            push_binary(md, key, value);
        } else {
            match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => md.push(key, text),
                Err(_) => md.push(key, &opaque(value.as_bytes())),
            }
        }
    }
    md.unwrap_or_default()
}

/// Marks a text value that is not UTF-8. No header value begins with this character.
const OPAQUE_MARK: char = '\u{1}';

/// A text value that is not UTF-8, in its form on the wire.
fn opaque(value: &[u8]) -> String {
    let bytes = value.iter().copied().map(char::from);
    std::iter::once(OPAQUE_MARK).chain(bytes).collect()
}

/// Leaves out the keys that describe the compression of messages, for a tunnel that does not carry
/// compressed messages.
pub(crate) fn without_encodings(md: Metadata) -> Metadata {
    if !md.iter().any(|(key, _)| is_encoding(key)) {
        return md;
    }
    md.iter().filter(|(key, _)| !is_encoding(key)).collect()
}

/// Leaves out text values that are not UTF-8, for a peer that does not accept them. Also returns their
/// number.
pub(crate) fn without_opaque(md: Metadata) -> (Metadata, usize) {
    // A binary value may begin with any byte.
    let is_opaque =
        |key: &str, value: &str| value.starts_with(OPAQUE_MARK) && !key.ends_with(BINARY_SUFFIX);
    let dropped = md.iter().filter(|(key, value)| is_opaque(key, value));
    let dropped = dropped.count();
    if dropped == 0 {
        return (md, 0);
    }
    let taken = md.iter().filter(|(key, value)| !is_opaque(key, value));
    (taken.collect(), dropped)
}

/// One header of a `-bin` key may hold several values, separated by commas.
fn push_binary(md: &mut Metadata, key: &str, value: &HeaderValue) {
    for part in value.as_bytes().split(|&b| b == b',') {
        match BASE64.decode(part.trim_ascii()) {
            Ok(bytes) => {
                let text: String = bytes.into_iter().map(char::from).collect();
                md.push(key, &text);
            }
            Err(_) => tracing::debug!(key, "binary metadata is not base64: not sent"),
        }
    }
}

/// Adds metadata from a frame to a header map with room for `more` entries. Illegal headers are left
/// out, and entries over the limit. So are the keys that describe the compression of messages, unless
/// the tunnel carries `encodings`.
pub(crate) fn from_wire(md: &Metadata, headers: &mut HeaderMap, more: usize, encodings: bool) {
    if md.len() > MAX_ENTRIES {
        tracing::debug!(
            entries = md.len(),
            "too much metadata: the rest is left out"
        );
    }
    headers.reserve(md.len().min(MAX_ENTRIES) + more);
    for (key, value) in md.iter().take(MAX_ENTRIES) {
        let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
            tracing::debug!(key, "illegal metadata key: left out");
            continue;
        };
        if is_reserved(name.as_str()) || (!encodings && is_encoding(name.as_str())) {
            tracing::debug!(key, "reserved metadata key: left out");
            continue;
        }
        let value = if name.as_str().ends_with(BINARY_SUFFIX) {
            HeaderValue::try_from(BASE64.encode(to_bytes(value)))
        } else if let Some(opaque) = value.strip_prefix(OPAQUE_MARK) {
            HeaderValue::from_bytes(&to_bytes(opaque))
        } else {
            HeaderValue::from_bytes(value.as_bytes())
        };
        match value {
            Ok(value) => {
                headers.append(name, value);
            }
            Err(_) => tracing::debug!(key, "illegal metadata value: left out"),
        }
    }
}

/// The bytes of a `-bin` value.
fn to_bytes(value: &str) -> Vec<u8> {
    let latin1: Result<Vec<u8>, _> = value.chars().map(|c| u8::try_from(u32::from(c))).collect();
    latin1.unwrap_or_else(|_| value.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::{MetadataMap, MetadataValue};

    fn round_trip(md: MetadataMap) -> MetadataMap {
        let mut headers = HeaderMap::new();
        from_wire(&to_wire(&md.into_headers()), &mut headers, 0, false);
        MetadataMap::from_headers(headers)
    }

    #[test]
    fn binary_values_of_every_byte_survive() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], &[], &[0xc3, 0xa9], &[0xff; 3]] {
            let mut md = MetadataMap::new();
            md.insert_bin("x-bin", MetadataValue::from_bytes(bytes));
            let back = round_trip(md);
            let value = back.get_bin("x-bin").expect("there");
            assert_eq!(&value.to_bytes().expect("base64")[..], bytes);
        }
    }

    #[test]
    fn binary_values_from_a_peer_that_sends_utf8_are_taken_as_their_bytes() {
        let md: Metadata = [("x-bin", "→é")].into_iter().collect();
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, false);
        let back = MetadataMap::from_headers(headers);
        let value = back.get_bin("x-bin").expect("there");
        assert_eq!(&value.to_bytes().expect("base64")[..], "→é".as_bytes());
    }

    #[test]
    fn padded_unpadded_and_comma_separated_binary_headers_are_read() {
        let mut headers = HeaderMap::new();
        headers.insert("x-bin", HeaderValue::from_static("YQ==, YWI,YWJj"));
        let md = to_wire(&headers);
        let values: Vec<_> = md.iter().map(|(_, v)| v).collect();
        assert_eq!(values, ["a", "ab", "abc"]);
    }

    #[test]
    fn values_of_one_key_keep_their_order_whatever_the_case_of_the_key() {
        let md: Metadata = [("X-Mixed", "1"), ("other", "o"), ("x-mixed", "2")]
            .into_iter()
            .collect();
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, false);
        let values: Vec<_> = headers.get_all("x-mixed").iter().collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn reserved_keys_never_cross_but_the_timeout_does() {
        let keys = [
            "te",
            "content-type",
            "connection",
            "transfer-encoding",
            "host",
            "grpc-status",
            "grpc-status-details-bin",
            "grpc-message-type",
            "GRPC-Message",
            ":path",
            NOT_PROCESSED_KEY,
        ];
        let md: Metadata = keys.into_iter().map(|k| (k, "v")).collect();
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, false);
        assert!(headers.is_empty(), "{headers:?}");
        for key in keys.into_iter().filter(|k| !k.starts_with(':')) {
            headers.insert(
                HeaderName::try_from(key.to_ascii_lowercase()).expect("legal"),
                HeaderValue::from_static("v"),
            );
        }
        assert!(to_wire(&headers).is_empty());
        headers.insert("grpc-timeout", HeaderValue::from_static("1S"));
        assert_eq!(to_wire(&headers).get("grpc-timeout"), Some("1S"));
    }

    #[test]
    fn the_keys_of_compression_cross_only_with_compressed_messages() {
        let all = [
            (ENCODING, "gzip"),
            ("k", "v"),
            (ACCEPT_ENCODING, "gzip,zstd"),
        ];
        let md: Metadata = all.into_iter().collect();
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, true);
        assert_eq!(to_wire(&headers), md);
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, false);
        assert_eq!(without_encodings(md), to_wire(&headers));
        assert_eq!(to_wire(&headers).len(), 1);
    }

    #[test]
    fn text_values_that_are_not_utf8_survive_in_their_order() {
        let mut headers = HeaderMap::new();
        let values: [&[u8]; 4] = [b"plain", b"\xff\xfe", "grün".as_bytes(), b"\xe9t\xe9"];
        for value in values {
            headers.append("x", HeaderValue::from_bytes(value).expect("legal"));
        }
        let md = to_wire(&headers);
        let mut back = HeaderMap::new();
        from_wire(&md, &mut back, 0, false);
        assert_eq!(back, headers);
        let mut md = md;
        md.push("x-bin", "\u{1}\u{2}");
        let (others, dropped) = without_opaque(md);
        assert_eq!(dropped, 2);
        let others: Vec<_> = others.iter().map(|(_, v)| v.to_owned()).collect();
        assert_eq!(others, ["plain", "grün", "\u{1}\u{2}"]);
    }

    #[test]
    fn more_metadata_than_a_header_map_can_hold_is_cut() {
        let md: Metadata = (0..100_000).map(|i| (format!("k{i}"), "v")).collect();
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, false);
        assert_eq!(headers.len(), MAX_ENTRIES);
        headers.insert("one-more", HeaderValue::from_static("fits"));
    }

    #[test]
    fn illegal_keys_and_values_are_left_out_and_the_rest_kept() {
        let md: Metadata = [
            ("bad key", "v"),
            ("a", "line\nbreak"),
            ("", "v"),
            ("b", "ok"),
        ]
        .into_iter()
        .collect();
        let mut headers = HeaderMap::new();
        from_wire(&md, &mut headers, 0, false);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["b"], "ok");
        let mut headers = HeaderMap::new();
        headers.insert("x-bin", HeaderValue::from_static("!!!"));
        assert!(to_wire(&headers).is_empty());
    }
}
