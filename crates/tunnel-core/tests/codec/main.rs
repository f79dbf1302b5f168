//! The codec: compared with prost on arbitrary input, and with bytes written by hand where prost
//! leaves a choice.

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
