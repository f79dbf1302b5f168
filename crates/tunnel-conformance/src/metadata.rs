//! Metadata in the messages of the test service.

use bytes::Bytes;
use tonic::Status;
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, KeyAndValueRef,
    MetadataMap,
};

use crate::proto::Entry;

/// An entry. The value of a `-bin` key is the decoded bytes.
pub fn entry(key: &str, value: impl AsRef<[u8]>) -> Entry {
    Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_ref()),
    }
}

/// All 256 byte values.
pub fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// Appends entries to a metadata map, in order.
pub fn append(map: &mut MetadataMap, entries: &[Entry]) -> Result<(), Status> {
    for Entry { key, value } in entries {
        let illegal = |_| Status::invalid_argument(format!("{key} is no metadata key"));
        if key.ends_with("-bin") {
            let key = BinaryMetadataKey::from_bytes(key.as_bytes()).map_err(illegal)?;
            map.append_bin(key, BinaryMetadataValue::from_bytes(value));
        } else {
            let value = AsciiMetadataValue::try_from(&value[..])
                .map_err(|_| Status::invalid_argument(format!("the value of {key} is no text")))?;
            map.append(
                AsciiMetadataKey::from_bytes(key.as_bytes()).map_err(illegal)?,
                value,
            );
        }
    }
    Ok(())
}

/// The entries of a metadata map, decoded.
pub fn entries(map: &MetadataMap) -> Vec<Entry> {
    map.iter()
        .map(|pair| match pair {
            KeyAndValueRef::Ascii(key, value) => entry(key.as_str(), value.as_bytes()),
            KeyAndValueRef::Binary(key, value) => {
                let bytes = value.to_bytes().expect("binary metadata is valid base64");
                entry(key.as_str(), bytes)
            }
        })
        .collect()
}

/// All values of one key, in order.
pub fn values(entries: &[Entry], key: &str) -> Vec<Bytes> {
    let of_key = entries.iter().filter(|entry| entry.key == key);
    of_key.map(|entry| entry.value.clone()).collect()
}

/// Panics unless the map has, for each key in `expected`, exactly the values listed there, in that
/// order. Other keys are ignored.
#[track_caller]
pub fn assert_has(map: &MetadataMap, expected: &[Entry]) {
    assert_entries(&entries(map), expected);
}

/// Like [`assert_has`], for a list of entries.
#[track_caller]
pub fn assert_entries(actual: &[Entry], expected: &[Entry]) {
    for Entry { key, .. } in expected {
        assert_eq!(
            values(actual, key),
            values(expected, key),
            "values of {key}"
        );
    }
}

/// Panics if the map has the key.
#[track_caller]
pub fn assert_has_not(map: &MetadataMap, key: &str) {
    let found = values(&entries(map), key);
    assert!(found.is_empty(), "{key} should not be there: {found:?}");
}
