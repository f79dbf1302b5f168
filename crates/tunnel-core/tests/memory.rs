//! The memory of an idle stream.
//!
//! The only test of its program, because the allocator counts all threads.

use std::alloc::System;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tunnel_core::{Config, Side};

#[path = "../benches/support/mod.rs"]
mod support;

use support::joined::Joined;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough streams that the tunnel's own memory does not matter. Just more than fit a table of 16,384
/// places: it has doubled, and holds the most memory for each stream.
const STREAMS: usize = 14_337;

/// The limit for a stream that was opened and answered with headers, at both ends together, in
/// bytes: its state at each end, and its place in a half-empty table.
const UNUSED: usize = 1024;

/// The limit after a message was sent and read in each direction. It is the same, because the first
/// item of each queue is stored in the stream.
const USED: usize = 1024;

#[test]
fn an_idle_stream_holds_no_more_than_promised() {
    let config = Config::builder()
        .max_concurrent_streams(STREAMS)
        .overcommit(true)
        .build()
        .expect("valid");
    let mut joined = Joined::with(config);
    let region = Region::new(ALLOCATOR);
    let held = || {
        let stats = region.change();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    let mut ids = Vec::with_capacity(STREAMS);
    let ours = held();
    for _ in 0..STREAMS {
        ids.extend(joined.open_idle(1));
    }
    let unused = (held() - ours) / STREAMS;

    let payload = Bytes::from_static(&[7; 16]);
    for &id in &ids {
        joined.messages(Side::Caller, id, &payload, 1);
        joined.messages(Side::Handler, id, &payload, 1);
    }
    let used = (held() - ours) / STREAMS;
    assert_eq!(joined.streams(), 2 * STREAMS);
    println!("an idle stream holds {unused} bytes, after a message each way {used}");
    assert!(unused <= UNUSED, "{unused} bytes");
    assert!(used <= USED, "{used} bytes after a message each way");

    joined.close_idle(&ids);
    assert_eq!(joined.streams(), 0);
}
