//! Support for benchmarks and tests of allocations: two ends of a tunnel joined in memory, and the
//! measured scenarios.

// Each program uses a part of it.
#![allow(dead_code)]

pub(crate) mod codec;
pub(crate) mod joined;
pub(crate) mod scenario;
pub(crate) mod shapes;

#[path = "../../tests/codec/wire.rs"]
mod wire;
