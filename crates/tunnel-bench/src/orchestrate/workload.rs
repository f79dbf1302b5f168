//! Workloads and their steps.
//!
//! Invariant: the steps of a workload run in order on one pair, and the first failure ends it.

use std::time::Duration;

use super::pair::Setup;
use crate::job::Job;
use crate::results::Metric;
use crate::variant::Variant;

/// A sequence of steps that run on one pair without interruption.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) group: &'static str,
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
    /// Selects the variants that take part.
    pub(super) who: fn(&Variant) -> bool,
}

/// One job of a workload.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) job: Job,
    /// The time limit, after which the job counts as hanging.
    pub(super) limit: Duration,
    /// The rows that the step fills. Empty if the step only prepares others.
    pub(super) rows: Vec<RowOf>,
}

impl Step {
    /// Whether later steps need this one.
    fn prepares(&self) -> bool {
        matches!(
            self.job,
            Job::HoldIdle { .. } | Job::HoldUnread { .. } | Job::Flood { .. }
        )
    }
}

/// The name and the metrics of a row.
#[derive(Clone, Debug)]
pub(super) struct RowOf {
    pub(super) name: String,
    pub(super) metrics: &'static [Metric],
    /// The payload of each message, in bytes.
    pub(super) size: u32,
}

impl Workload {
    /// The rows of all steps.
    pub(super) fn rows(&self) -> impl Iterator<Item = &RowOf> {
        self.steps.iter().flat_map(|step| &step.rows)
    }

    /// Reduces the workload to the wanted rows, or returns `None` if there are none. Preparing
    /// steps before a wanted row stay. With new processes the first step stays too: memory is
    /// measured after the processes have served calls.
    pub(super) fn only(mut self, wanted: impl Fn(&RowOf) -> bool) -> Option<Self> {
        let last = (self.steps.iter()).rposition(|s| s.rows.iter().any(&wanted))?;
        let fresh = self.setup.fresh;
        let stays = |(n, step): &(usize, Step)| {
            let prepares = step.rows.is_empty() || step.prepares() || (fresh && *n == 0);
            let releases = step.job == Job::Release {};
            releases || *n <= last && (prepares || step.rows.iter().any(&wanted))
        };
        let steps = self.steps.into_iter().enumerate().filter(stays);
        self.steps = steps.map(|(_, step)| step).collect();
        for step in &mut self.steps {
            step.rows.retain(&wanted);
        }
        Some(self)
    }
}
