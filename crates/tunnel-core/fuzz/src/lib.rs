//! What the fuzz targets of `tunnel-core` do with their input.
//!
//! The targets themselves are one line each. Their bodies are in [`bodies`], which
//! `tests/fuzzed.rs` of `tunnel-core` includes as well: there they run over the inputs that
//! are checked in, without libFuzzer and on any toolchain. The codec's oracle is that of
//! the crate's own tests, so that there is one account of what prost thinks.

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

/// Counts what Rust code holds, and refuses what goes beyond the limit of the run at hand:
/// the process then aborts, which libFuzzer reports as a crash with its input.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Lets what follows take so many bytes beyond what is held now; `None` lets it take any.
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
    // It fails only where more is held than the limit, which is above what is held.
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
