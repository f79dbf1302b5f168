//! The number of allocations of a call, which does not depend on the machine.
//!
//! The only test of its program, because the allocator counts all threads.

use std::alloc::System;

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tunnel_core::Metadata;

#[path = "../benches/support/mod.rs"]
mod support;

use support::joined::Joined;
use support::scenario::metadata;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls after which tables, queues and buffers have reached their size.
const WARM_UP: usize = 1000;

/// Calls that are counted.
const CALLS: usize = 1000;

/// The limit for a call of 16 bytes in each direction, at both ends together, from `open` until its
/// end was read. Lower it when the measured number falls. At each end: the stream, the message sent,
/// the message received and its delivery, the method, the status; and the caller's opening.
const FOR_EACH_CALL: usize = 11;

/// What ten metadata entries of a request may add: two for the list at each end, which include the
/// user's copy, and two while it is parsed.
const FOR_METADATA: usize = 6;

#[test]
fn a_call_allocates_no_more_often_than_promised() {
    let plain = allocations(1, 0);
    assert!(plain <= FOR_EACH_CALL, "{plain} for each call");
    let at_once = allocations(50, 0);
    assert!(at_once <= FOR_EACH_CALL, "{at_once} for each of 50 calls");
    let described = allocations(1, 10);
    let most = FOR_EACH_CALL + FOR_METADATA;
    assert!(described <= most, "{described} for each, with metadata");
    println!("for each call: {plain}; of 50 at once: {at_once}; with metadata: {described}");
}

/// The allocations of a call, averaged over many and rounded, so that a table that grows once does
/// not count.
fn allocations(at_a_time: usize, entries: usize) -> usize {
    let mut joined = Joined::new();
    let headers: Metadata = metadata(entries);
    let payload = Bytes::from_static(&[7; 16]);
    let mut calls = |count: usize| {
        for _ in 0..count / at_a_time {
            joined.unary_calls(at_a_time, &headers, &payload);
        }
    };
    calls(WARM_UP);
    let region = Region::new(ALLOCATOR);
    calls(CALLS);
    let stats = region.change();
    let live = stats.bytes_allocated.abs_diff(stats.bytes_deallocated);
    assert_eq!(joined.streams(), 0);
    assert!(live < CALLS, "{CALLS} calls left {live} bytes behind");
    (stats.allocations + stats.reallocations + CALLS / 2) / CALLS
}
