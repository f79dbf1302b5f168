//! The table of targets.

use crate::results::Metric;

use Against::{Baseline, Elsewhere, Nothing, Workload};
use Bound::{AtLeast, AtMost};
use Measure::{Of, Rate};

/// A target for one measure of several workloads.
pub(super) struct Target {
    pub(super) workloads: &'static [&'static str],
    pub(super) measure: Measure,
    pub(super) against: Against,
    /// The bound for handlers that run in their own tasks.
    pub(super) spawned: Bound,
    /// The bound for handlers that are polled inline, if they have one.
    pub(super) inline: Option<Bound>,
}

#[derive(Clone, Copy)]
pub(super) enum Measure {
    /// The rate, in the unit that the workload counts.
    Rate,
    Of(Metric),
}

/// The divisor of the ratio.
#[derive(Clone, Copy)]
pub(super) enum Against {
    /// The workload's baseline, in the same row.
    Baseline,
    /// The same variant in another workload.
    Workload(&'static str),
    /// No divisor: the value must be zero in every round.
    Nothing,
    /// Not measured by this program; the text says what measures it.
    Elsewhere(&'static str),
}

/// The bound of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Concurrent calls, for which the targets of tunnels are highest.
const CONCURRENT: &[&str] = &[
    "unary 16 B x 16",
    "unary 16 B x 64",
    "unary 16 B x 256",
    "unary 16 B x 1024",
];

/// Calls at a high fixed rate, without other work.
const OPEN_LOOP_FAST: &[&str] = &[
    "open loop 2000/s of 16 B, quiet",
    "open loop 10000/s of 16 B, quiet",
];

/// All other calls at a fixed rate.
const OPEN_LOOP: &[&str] = &[
    "open loop 200/s of 16 B, quiet",
    "open loop 1000/s of 64 KiB, quiet",
    "open loop 200/s of 16 B, other tasks use 40 %",
    "open loop 2000/s of 16 B, other tasks use 40 %",
    "open loop 10000/s of 16 B, other tasks use 40 %",
    "open loop 1000/s of 64 KiB, other tasks use 40 %",
    "open loop 200/s of 16 B, other tasks use 80 %",
    "open loop 2000/s of 16 B, other tasks use 80 %",
    "open loop 1000/s of 64 KiB, other tasks use 80 %",
    "open loop 200/s of 16 B, handlers compute 200 µs",
    "open loop 2000/s of 16 B, handlers compute 200 µs",
    "open loop 1000/s of 64 KiB, handlers compute 200 µs",
];

const BROWNOUTS: &[&str] = &[
    "brownout, 100 callers, dropped after 50 ms",
    "brownout, 300 callers, dropped after 200 ms",
    "brownout, 1000 callers, dropped after 100 ms",
    "brownout, 100 callers, deadline 50 ms",
    "brownout, 300 callers, deadline 200 ms",
    "brownout, 1000 callers, deadline 100 ms",
];

pub(super) const TARGETS: &[Target] = &[
    target(&["unary 16 B x 1"], Rate, AtLeast(1.1)),
    target(&["unary 16 B x 1"], Of(Metric::P50), AtMost(1.0)),
    target(&["unary 16 B x 1"], Of(Metric::P99), AtMost(1.15)),
    target(CONCURRENT, Rate, AtLeast(1.8)).inline(AtLeast(2.2)),
    target(CONCURRENT, Of(Metric::CpuPerCall), AtMost(0.45)).inline(AtMost(0.4)),
    target(CONCURRENT, Of(Metric::P99), AtMost(0.6)).inline(AtMost(0.6)),
    target(&["unary 64 KiB x 16"], Rate, AtLeast(1.1)),
    target(
        &["download 1 KiB x 1", "upload 1 KiB x 1"],
        Rate,
        AtLeast(0.9),
    ),
    target(
        &["download 1 KiB x 8", "upload 1 KiB x 8"],
        Rate,
        AtLeast(1.2),
    ),
    target(
        &["download 1 MiB x 1", "upload 1 MiB x 1"],
        Rate,
        AtLeast(0.95),
    ),
    target(
        &["download 1 MiB x 8", "upload 1 MiB x 8"],
        Rate,
        AtLeast(1.2),
    ),
    target(OPEN_LOOP_FAST, Of(Metric::P50), AtMost(1.0)),
    target(OPEN_LOOP_FAST, Of(Metric::P99), AtMost(0.7)),
    target(OPEN_LOOP, Of(Metric::P50), AtMost(1.0)),
    target(OPEN_LOOP, Of(Metric::P99), AtMost(1.0)),
    target(BROWNOUTS, Rate, AtLeast(0.95)),
    target(BROWNOUTS, Of(Metric::OtherFailures), AtMost(0.0)).against(Nothing),
    target(
        &[
            "50 ms each way: download 1 MiB x 1",
            "50 ms each way: upload 1 MiB x 1",
            "50 ms each way: unary 64 KiB x 16",
        ],
        Rate,
        AtLeast(0.95),
    ),
    target(
        &["unary 16 B x 16 beside 64 unread streams"],
        Rate,
        AtLeast(0.9),
    )
    .against(Workload("unary 16 B x 16 beside 0 unread streams")),
    target(
        &["4 callers beside a 1 MiB stream"],
        Of(Metric::P99),
        AtMost(0.3),
    ),
    target(
        &["open 10000 idle streams", "open 100000 idle streams"],
        Of(Metric::MemoryPerStream),
        AtMost(0.9),
    ),
    target(
        &["idle stream, ours alone: ≤ 2 kB"],
        Of(Metric::MemoryPerStream),
        AtMost(1.0),
    )
    .against(Elsewhere("by `cargo bench -p tunnel-core`")),
    target(&["open 100000 idle streams"], Rate, AtLeast(1.5)),
    target(
        &["unary 16 B x 64 beside 100000 idle streams"],
        Rate,
        AtLeast(0.9),
    )
    .against(Workload("unary 16 B x 64 beside 0 idle streams")),
];

/// The target for tunnels with the Go program at one end, on every workload.
pub(super) const WITH_GO_TARGET: Bound = AtLeast(1.0);

const fn target(workloads: &'static [&'static str], measure: Measure, spawned: Bound) -> Target {
    Target {
        workloads,
        measure,
        against: Baseline,
        spawned,
        inline: None,
    }
}

impl Target {
    const fn inline(mut self, bound: Bound) -> Self {
        self.inline = Some(bound);
        self
    }

    const fn against(mut self, against: Against) -> Self {
        self.against = against;
        self
    }
}

/// The workloads of all targets measured by this program.
#[cfg(test)]
pub(crate) fn measured_here() -> impl Iterator<Item = &'static str> {
    let here = TARGETS
        .iter()
        .filter(|t| !matches!(t.against, Elsewhere(_)));
    here.flat_map(|target| target.workloads.iter().copied())
}
