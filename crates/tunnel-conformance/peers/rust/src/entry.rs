//! Metadata, and its form in messages.

use std::collections::BTreeMap;

use bytes::Bytes;
use interop_peer::options::Key;
use tonic::Status;
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, KeyAndValueRef,
    MetadataMap,
};

use crate::proto::Entry;

/// One entry; the value of a `-bin` key is the bytes themselves.
pub(crate) fn entry(key: &str, value: impl AsRef<[u8]>) -> Entry {
    Entry {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_ref()),
    }
}

impl Key for Entry {
    fn new(name: &str, value: &str) -> Result<Self, String> {
        Ok(entry(name, value))
    }

    fn append_to(&self, metadata: &mut MetadataMap) -> Result<(), Status> {
        append(metadata, self)
    }
}

/// The values of each key, in order.
pub(crate) fn by_key(entries: &[Entry]) -> BTreeMap<&str, Vec<&Bytes>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for Entry { key, value } in entries {
        keys.entry(key.as_str()).or_default().push(value);
    }
    keys
}

/// The metadata that entries stand for.
pub(crate) fn to_metadata(entries: &[Entry]) -> Result<MetadataMap, Status> {
    let mut metadata = MetadataMap::new();
    for entry in entries {
        append(&mut metadata, entry)?;
    }
    Ok(metadata)
}

fn append(metadata: &mut MetadataMap, Entry { key, value }: &Entry) -> Result<(), Status> {
    let illegal = |_| Status::invalid_argument(format!("{key} is no metadata key"));
    if key.ends_with("-bin") {
        let key = BinaryMetadataKey::from_bytes(key.as_bytes()).map_err(illegal)?;
        metadata.append_bin(key, BinaryMetadataValue::from_bytes(value));
    } else {
        let value = AsciiMetadataValue::try_from(&value[..])
            .map_err(|_| Status::invalid_argument(format!("the value of {key} is no text")))?;
        let key = AsciiMetadataKey::from_bytes(key.as_bytes()).map_err(illegal)?;
        metadata.append(key, value);
    }
    Ok(())
}

/// The entries that metadata consists of. A binary value that is no base64 is
/// left out: nobody could say which bytes it stands for.
pub(crate) fn from_metadata(metadata: &MetadataMap) -> Vec<Entry> {
    let entries = metadata.iter().filter_map(|pair| match pair {
        KeyAndValueRef::Ascii(key, value) => Some(entry(key.as_str(), value.as_bytes())),
        KeyAndValueRef::Binary(key, value) => {
            let bytes = value.to_bytes().ok()?;
            Some(entry(key.as_str(), bytes))
        }
    });
    entries.collect()
}
