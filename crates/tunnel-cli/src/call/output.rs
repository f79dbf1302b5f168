//! What the user sees: messages as JSON, metadata, and a status as grpcurl shows it.

use std::fmt::Write as _;

use anyhow::Result;
use data_encoding::BASE64;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use tonic::Status;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

/// A message as indented JSON.
pub(crate) fn json(message: &DynamicMessage, emit_defaults: bool) -> Result<String> {
    let options = SerializeOptions::new().skip_default_fields(!emit_defaults);
    let mut serializer = serde_json::Serializer::pretty(Vec::new());
    message.serialize_with_options(&mut serializer, &options)?;
    Ok(String::from_utf8(serializer.into_inner())?)
}

/// Metadata, a line each, in alphabetical order.
pub(crate) fn metadata(metadata: &MetadataMap) -> String {
    let mut lines: Vec<String> = metadata
        .iter()
        .map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => {
                format!("{key}: {}", String::from_utf8_lossy(value.as_bytes()))
            }
            KeyAndValueRef::Binary(key, value) => {
                let bytes = value.to_bytes().unwrap_or_default();
                format!("{key}: {}", BASE64.encode(&bytes))
            }
        })
        .collect();
    lines.sort();
    match lines.is_empty() {
        true => "(empty)".to_owned(),
        false => lines.join("\n"),
    }
}

/// A status as grpcurl shows it. `known` has types that its details may have.
pub(crate) fn status(status: &Status, known: &DescriptorPool) -> String {
    let mut text = format!(
        "ERROR:\n  Code: {:?}\n  Message: {}\n",
        status.code(),
        status.message()
    );
    let details = details(status.details(), known);
    if !details.is_empty() {
        text += "  Details:\n";
    }
    for (index, detail) in details.iter().enumerate() {
        let detail = detail.replace('\n', "\n    \t");
        let _ = writeln!(text, "  {})\t{detail}", index + 1);
    }
    text
}

/// The details of a status: JSON if their types are known, and the names of their types if not.
fn details(bytes: &[u8], known: &DescriptorPool) -> Vec<String> {
    let mut pool = known.clone();
    if let Ok(google) = DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET) {
        let files = google.file_descriptor_protos();
        let missing = files.filter(|file| known.get_file_by_name(file.name()).is_none());
        let _ = pool.add_file_descriptor_protos(missing.cloned());
    }
    let Some(status) = pool.get_message_by_name("google.rpc.Status") else {
        return Vec::new();
    };
    let Ok(status) = DynamicMessage::decode(status, bytes) else {
        return Vec::new();
    };
    let details = status.get_field_by_name("details");
    let details = details.as_ref().and_then(|details| details.as_list());
    let details = details.unwrap_or_default().iter();
    details
        .filter_map(|detail| detail.as_message())
        .map(|detail| {
            json(detail, false).unwrap_or_else(|_| {
                let url = detail.get_field_by_name("type_url");
                let url = url.as_ref().and_then(|url| url.as_str());
                format!(
                    "{{\"@type\": {:?}}} (its type is not known)",
                    url.unwrap_or_default()
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt as _};

    #[test]
    fn a_status_is_shown_with_its_details() {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "FULL",
            "disk.example",
            [("free".to_owned(), "0".to_owned())],
        );
        let refused =
            Status::with_error_details(Code::ResourceExhausted, "the disk is full", details);
        let text = status(&refused, &DescriptorPool::new());
        let start =
            "ERROR:\n  Code: ResourceExhausted\n  Message: the disk is full\n  Details:\n  1)\t{";
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("\"reason\": \"FULL\""), "{text}");
    }

    #[test]
    fn a_status_without_details_has_three_lines() {
        let text = status(&Status::not_found("no file"), &DescriptorPool::new());
        assert_eq!(text, "ERROR:\n  Code: NotFound\n  Message: no file\n");
    }
}
