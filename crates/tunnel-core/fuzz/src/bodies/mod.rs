//! The bodies of the fuzz targets: each takes an input, and panics if something is wrong.
//!
//! Their inputs are bytes with a layout of our own, read by [`Input`] and said in the head
//! of each body, rather than by a crate whose layout may change with its version: an input that
//! was kept means the same tomorrow. A body that reads past the end of its input reads
//! zeros, so every input is one.

pub(crate) mod connection;
pub(crate) mod frame_parse;
pub(crate) mod frame_roundtrip;
pub(crate) mod framing;
mod input;

pub(crate) use input::{Input, cut};

/// Lets what follows allocate so many bytes more than is allocated now, or any number again.
/// Does nothing where the program has no allocator that could refuse.
pub(crate) type Allow = fn(Option<usize>);
