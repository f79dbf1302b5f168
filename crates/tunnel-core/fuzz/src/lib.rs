//! The bodies of the fuzz targets of `tunnel-core`.
//!
//! The targets are one line each. Their bodies are in [`bodies`]. The tests `fuzzed` of
//! `tunnel-core` run them on the inputs that are checked in, without libFuzzer, and the tests
//! `properties` run the body of `connection` on inputs from proptest. The codec's oracle is that
//! of the crate's own tests.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::panic;
use std::sync::Once;

use cap::Cap;

mod bodies;

#[allow(dead_code, reason = "its generators are for property tests")]
#[path = "../../tests/support/frames.rs"]
mod frames;

#[allow(dead_code, reason = "the codec's own tests use the rest")]
#[path = "../../tests/codec/oracle.rs"]
mod oracle;

/// Counts the memory of Rust code, and refuses more than the limit of a run. Then the process
/// aborts, which libFuzzer reports as a crash with its input.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Sets the limit of memory, in bytes beyond what is held now. `None` removes it.
fn allow(bytes: Option<usize>) {
    static REPORTS_NEED_MEMORY: Once = Once::new();
    REPORTS_NEED_MEMORY.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            allow(None);
            report(info);
        }));
    });
    let limit = match bytes {
        Some(bytes) => ALLOCATOR.allocated().saturating_add(bytes),
        None => usize::MAX,
    };
    // This fails only if more is held than the limit, which is above that.
    let _ = ALLOCATOR.set_limit(limit);
}

/// See `bodies/frame_parse.rs`.
pub fn frame_parse(data: &[u8]) {
    bodies::frame_parse::run(data, allow);
}

/// See `bodies/frame_roundtrip.rs`.
pub fn frame_roundtrip(data: &[u8]) {
    bodies::frame_roundtrip::run(data);
}

/// See `bodies/framing.rs`.
pub fn framing(data: &[u8]) {
    bodies::framing::run(data, allow);
}

/// See `bodies/connection/mod.rs`.
pub fn connection(data: &[u8]) {
    bodies::connection::run(data, allow);
}
