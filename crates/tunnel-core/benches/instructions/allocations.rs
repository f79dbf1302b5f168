//! Counts the allocations of a scenario and their bytes.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::support::scenario::Scenario;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and the bytes allocated, for one unit of a scenario.
pub(crate) fn count(scenario: &Scenario) -> (f64, f64) {
    let mut round = scenario.set_up();
    for _ in 0..scenario.rounds {
        round();
    }
    let units = scenario.rounds * scenario.units();
    let region = Region::new(ALLOCATOR);
    for _ in 0..scenario.rounds {
        round();
    }
    let stats = region.change();
    let each = |n: usize| n as f64 / units as f64;
    (
        each(stats.allocations + stats.reallocations),
        each(stats.bytes_allocated),
    )
}
