//! What an open stream on which nothing happens holds in memory.
//!
//! A program of its own with one test, because the allocator counts what all threads do.

use std::alloc::System;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tunnel_core::{Config, Side};

#[path = "../benches/support/mod.rs"]
mod support;

use support::joined::Joined;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Enough that what belongs to the tunnel does not show, and just more than what a table of
/// 16,384 places takes: it has doubled, and holds the most for each stream that it ever will.
const STREAMS: usize = 14_337;

/// What a stream may hold that was opened and answered with headers, at both ends together, in
/// bytes: for each end its state, and its place in a table that is half empty.
const UNUSED: usize = 1024;

/// What it may hold when a message has gone each way and was read: no more, because the first
/// item of each queue stands in the stream.
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
