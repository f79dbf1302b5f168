//! What a measurement consists of.
//!
//! Invariant: the steps of a workload run in order on one pair, and when one fails none after it is
//! run.

use std::time::Duration;

use super::pair::Setup;
use crate::job::Job;
use crate::results::Metric;
use crate::variant::Variant;

/// What runs on one pair without anything between.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) group: &'static str,
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
    /// Who takes part.
    pub(super) who: fn(&Variant) -> bool,
}

/// One job of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) job: Job,
    /// How long it may take before it is said to hang.
    pub(super) limit: Duration,
    /// The rows it fills; none where it only prepares.
    pub(super) rows: Vec<RowOf>,
}

impl Step {
    /// Whether steps after it need it.
    fn prepares(&self) -> bool {
        matches!(
            self.job,
            Job::HoldIdle { .. } | Job::HoldUnread { .. } | Job::Flood { .. }
        )
    }
}

/// A row's name and metrics.
#[derive(Clone, Debug)]
pub(super) struct RowOf {
    pub(super) name: String,
    pub(super) metrics: &'static [Metric],
    /// Payload of each message.
    pub(super) size: u32,
}

impl Workload {
    /// The names of its rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &RowOf> {
        self.steps.iter().flat_map(|step| &step.rows)
    }

    /// What is left of it when only some rows are wanted: steps that prepare stay, as long as
    /// there is a row after them, and so does the first one of fresh processes, whose memory is
    /// measured when they have served calls before.
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
