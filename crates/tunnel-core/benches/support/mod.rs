//! What the benchmarks and the tests of allocations share: two ends of a tunnel joined in
//! memory, and the scenarios that are measured.

// Each program uses a part of it.
#![allow(dead_code)]

pub(crate) mod codec;
pub(crate) mod joined;
pub(crate) mod scenario;
pub(crate) mod shapes;

#[path = "../../tests/codec/wire.rs"]
mod wire;
