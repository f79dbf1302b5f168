//! The generated code of the admin API, and its messages as JSON.

#![allow(clippy::all, missing_docs, unreachable_pub, unused)]

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

include!("../generated/tunnel.admin.v1.rs");

/// The descriptor of the API, also for server reflection.
pub(crate) const DESCRIPTOR: &[u8] = include_bytes!("../generated/descriptor.bin");

/// A message as a line of JSON: fields with the names of the API, 64-bit numbers as numbers.
pub(crate) fn json(name: &str, message: &impl prost::Message) -> Result<String> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTOR).unwrap_or_default());
    let descriptor = pool
        .get_message_by_name(&format!("tunnel.admin.v1.{name}"))
        .with_context(|| format!("the API has no message {name}"))?;
    let message = DynamicMessage::decode(descriptor, &*message.encode_to_vec())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut text = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut text, &options)?;
    Ok(String::from_utf8(text.into_inner())?)
}
