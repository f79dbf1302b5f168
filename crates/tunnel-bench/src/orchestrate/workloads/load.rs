//! Calls at a fixed rate, and calls of handlers that are too slow for their callers.

use std::time::Duration;

use super::parts::{KIB, LATENCIES, Scale, TIMEOUTS, main_ones, shared, timed};
use crate::job::{Brownout, Ends, Job, OpenLoop};
use crate::orchestrate::pair::Setup;
use crate::orchestrate::workload::Workload;

/// The conditions of the open loop: the name and the setup of each.
///
/// Workloads with the same condition are adjacent, so that they share pairs.
fn conditions() -> [(&'static str, Setup); 4] {
    let busy = |busy_percent| Setup {
        busy_percent,
        ..shared()
    };
    let computing = Setup {
        computes: Duration::from_micros(200),
        ..shared()
    };
    [
        ("quiet", shared()),
        ("other tasks use 40 %", busy(40)),
        ("other tasks use 80 %", busy(80)),
        ("handlers compute 200 µs", computing),
    ]
}

pub(super) fn open_loops(scale: Scale) -> Vec<Workload> {
    let rates = [
        (200, "16 B", 16),
        (2000, "16 B", 16),
        (10_000, "16 B", 16),
        (1000, "64 KiB", 64 * KIB),
    ];
    let mut all = Vec::new();
    for (condition, setup) in conditions() {
        for (per_second, unit, size) in rates {
            // The other work alone would use up, or nearly use up, two cores.
            let too_much = setup.busy_percent == 80 || !setup.computes.is_zero();
            if per_second == 10_000 && too_much {
                continue;
            }
            let millis = scale.long_millis;
            let job = Job::OpenLoop(OpenLoop {
                size,
                per_second,
                millis,
            });
            let name = format!("open loop {per_second}/s of {unit}, {condition}");
            all.push(Workload {
                group: "open loop",
                setup,
                steps: vec![timed(name, LATENCIES, size, millis, job)],
                who: main_ones,
            });
        }
    }
    all
}

/// Callers of a handler that is slower than their timeouts.
pub(super) fn brownouts(scale: Scale) -> Vec<Workload> {
    let setup = Setup {
        waits: Duration::from_secs(10),
        ..shared()
    };
    let mut all = Vec::new();
    for (ends, how) in [(Ends::Drop, "dropped after"), (Ends::Deadline, "deadline")] {
        for (callers, timeout_millis) in [(100, 50), (300, 200), (1000, 100)] {
            let millis = scale.long_millis;
            let job = Job::Brownout(Brownout {
                callers,
                timeout_millis,
                ends,
                millis,
            });
            let name = format!("brownout, {callers} callers, {how} {timeout_millis} ms");
            all.push(Workload {
                group: "brownout",
                setup,
                steps: vec![timed(name, TIMEOUTS, 16, millis, job)],
                who: main_ones,
            });
        }
    }
    all
}
