//! Calls beside many open streams and over many tunnels.

use super::parts::{
    CALLS, OPEN, OPENING, RATE, SPARE, Scale, calls, everyone, hold, in_rust_alone, many,
    many_reverse, shared,
};
use crate::job::Job;
use crate::orchestrate::pair::Setup;
use crate::orchestrate::workload::{RowOf, Step, Workload};
use crate::variant::Variant;

fn fresh(streams: usize) -> Setup {
    Setup {
        fresh: true,
        max_streams: Some(streams + SPARE),
        ..shared()
    }
}

/// Opens streams on processes that have served calls and nothing else. With the largest number of
/// streams, calls before and beside them are measured too.
pub(super) fn open(scale: Scale, streams: usize) -> Workload {
    let name = |beside| format!("unary 16 B x 64 beside {beside} idle streams");
    let opening = Step {
        job: Job::HoldIdle { streams },
        limit: OPEN,
        rows: vec![RowOf {
            name: format!("open {streams} idle streams"),
            metrics: OPENING,
            size: 0,
        }],
    };
    let mut before = calls(name(0), RATE, scale, 64);
    let mut steps = Vec::new();
    if streams < scale.streams {
        before.rows.clear();
        steps.extend([before, opening]);
    } else {
        steps.extend([before, opening, calls(name(streams), RATE, scale, 64)]);
    }
    Workload {
        group: "idle streams",
        setup: fresh(streams),
        steps,
        who: everyone,
    }
}

/// Calls beside a growing number of idle streams, on one pair.
pub(super) fn growth(scale: Scale) -> Workload {
    let mut steps = Vec::new();
    let mut held = 0;
    let all = [1, 10, 100, 1_000, 10_000, 100_000];
    for streams in all.into_iter().filter(|n| *n <= scale.streams) {
        steps.push(hold(Job::HoldIdle {
            streams: streams - held,
        }));
        held = streams;
        let name = format!("unary 16 B x 16 beside {streams} idle streams");
        steps.push(calls(name, RATE, scale, 16));
    }
    Workload {
        group: "growth",
        setup: fresh(held),
        steps,
        who: in_rust_alone,
    }
}

fn with_tunnels(tunnels: usize, who: fn(&Variant) -> bool, step: Step) -> Workload {
    Workload {
        group: "growth",
        setup: Setup {
            tunnels,
            ..Setup::default()
        },
        steps: vec![step],
        who,
    }
}

pub(super) fn over_tunnels(scale: Scale, tunnels: usize) -> Workload {
    let name = format!("unary 16 B x 64 over {tunnels} tunnels");
    with_tunnels(tunnels, many, calls(name, CALLS, scale, 64))
}

pub(super) fn over_reverse_tunnels(scale: Scale) -> Workload {
    let name = "unary 16 B x 64 over 1000 reverse tunnels".to_owned();
    with_tunnels(1000, many_reverse, calls(name, CALLS, scale, 64))
}
