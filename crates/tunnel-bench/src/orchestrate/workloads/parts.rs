//! The parts of workloads: metrics, sizes, time limits, steps, and who takes part.

use std::time::Duration;

use crate::job::{Job, Load};
use crate::orchestrate::pair::Setup;
use crate::orchestrate::workload::{RowOf, Step, Workload};
use crate::results::Metric;
use crate::variant::{Spreads, Variant, Way};

pub(super) const KIB: u32 = 1 << 10;
pub(super) const MIB: u32 = 1 << 20;

/// The time limit of a job beyond its duration.
pub(super) const SLACK: Duration = Duration::from_secs(15);

/// Like [`SLACK`], for jobs where a variant is expected to hang.
pub(super) const SHORT_SLACK: Duration = Duration::from_secs(4);

/// The time limit for opening streams.
pub(super) const OPEN: Duration = Duration::from_secs(120);

pub(super) const CALLS: &[Metric] = &[
    Metric::CallRate,
    Metric::P50,
    Metric::P99,
    Metric::P999,
    Metric::CpuPerCall,
];
pub(super) const LARGE_CALLS: &[Metric] = &[
    Metric::ByteRate,
    Metric::P50,
    Metric::P99,
    Metric::CpuPerByte,
];
pub(super) const SMALL_MESSAGES: &[Metric] = &[Metric::MessageRate, Metric::CpuPerByte];
pub(super) const LARGE_MESSAGES: &[Metric] = &[Metric::ByteRate, Metric::CpuPerByte];
pub(super) const TURNS: &[Metric] = &[
    Metric::MessageRate,
    Metric::P50,
    Metric::P99,
    Metric::P999,
    Metric::CpuPerCall,
];
pub(super) const LATENCIES: &[Metric] = &[Metric::P50, Metric::P99, Metric::P999];
pub(super) const BESIDE: &[Metric] = &[Metric::ByteRate];
pub(super) const OPENING: &[Metric] = &[Metric::OpenRate, Metric::MemoryPerStream];
pub(super) const RATE: &[Metric] = &[Metric::CallRate, Metric::P99];
pub(super) const STEADY: &[Metric] = &[Metric::ByteRate, Metric::Ramp];
pub(super) const TIMEOUTS: &[Metric] = &[Metric::TimeoutRate, Metric::OtherFailures];

/// The durations and sizes of a run.
#[derive(Clone, Copy, Debug)]
pub(in crate::orchestrate) struct Scale {
    pub(in crate::orchestrate) millis: u64,
    /// The largest number of open streams.
    pub(in crate::orchestrate) streams: usize,
    /// The duration of the workloads that need more time: on a slow link, at a fixed rate, in a
    /// brownout. In milliseconds.
    pub(in crate::orchestrate) long_millis: u64,
}

pub(super) fn everyone(variant: &Variant) -> bool {
    variant.spreads != Spreads::Only && !matches!(variant.way, Way::Observed(_))
}

/// As [`everyone`], with the observed variants.
pub(super) fn and_observed(variant: &Variant) -> bool {
    variant.spreads != Spreads::Only
}

pub(super) fn in_rust_alone(variant: &Variant) -> bool {
    everyone(variant) && !variant.needs_go()
}

/// Selects the variants with many tunnels or connections, and plain tonic as their baseline.
pub(super) fn many(variant: &Variant) -> bool {
    variant.spreads != Spreads::No || variant.name == "plain tonic"
}

/// Selects tunnels with default settings, and plain tonic as their baseline.
pub(super) fn main_ones(variant: &Variant) -> bool {
    ["plain tonic", "forward tunnel", "reverse tunnel"].contains(&variant.name)
}

pub(super) fn many_reverse(variant: &Variant) -> bool {
    many(variant) && !matches!(variant.way, Way::Forward { .. })
}

/// How many streams a tunnel allows beyond the held ones, for calls.
pub(super) const SPARE: usize = 2048;

pub(super) fn shared() -> Setup {
    Setup {
        tunnels: 1,
        ..Setup::default()
    }
}

/// A step whose job has a fixed duration and fills one row.
pub(super) fn timed(
    name: String,
    metrics: &'static [Metric],
    size: u32,
    millis: u64,
    job: Job,
) -> Step {
    Step {
        job,
        limit: Duration::from_millis(millis) + SLACK,
        rows: vec![RowOf {
            name,
            metrics,
            size,
        }],
    }
}

pub(super) fn hold(job: Job) -> Step {
    Step {
        job,
        limit: OPEN,
        rows: Vec::new(),
    }
}

/// A workload of one step, on shared pairs.
pub(super) fn single(group: &'static str, step: Step) -> Workload {
    Workload {
        group,
        setup: shared(),
        steps: vec![step],
        who: everyone,
    }
}

/// Small unary calls.
pub(super) fn calls(
    name: String,
    metrics: &'static [Metric],
    scale: Scale,
    at_once: usize,
) -> Step {
    let load = Load {
        size: 16,
        at_once,
        millis: scale.millis,
    };
    timed(name, metrics, 16, scale.millis, Job::Unary(load))
}
