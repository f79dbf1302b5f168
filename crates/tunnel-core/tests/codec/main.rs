//! The codec: held to prost on arbitrary input, and to bytes written out by
//! hand for what prost leaves open.

mod agreement;
mod arbitrary;
mod bytes_by_hand;
mod memory;
mod metadata;
mod oracle;
mod sides;
mod wire;

#[path = "../support/frames.rs"]
mod frames;
