//! The bodies of the fuzz targets: each takes an input, and panics on a fault.
//!
//! [`Input`] reads the bytes, and the head of each body says their layout. It does not depend on a
//! library, so a kept input means the same later. After the end of an input come zeros, so every
//! input is valid.

pub(crate) mod connection;
pub(crate) mod frame_parse;
pub(crate) mod frame_roundtrip;
pub(crate) mod framing;
mod input;

pub(crate) use input::{Input, cut};

/// Limits the memory of what follows, in bytes beyond what is allocated now; `None` removes the
/// limit. Does nothing in a program without a limiting allocator.
pub(crate) type Allow = fn(Option<usize>);
