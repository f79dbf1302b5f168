//! The metrics without the feature `metrics`: none.

use std::time::Duration;

use tunnel_core::{Code, Stats};

use crate::info::{Direction, NetworkRole, TunnelInfo};

/// The metrics of one tunnel: none.
#[derive(Debug)]
pub(crate) struct TunnelMetrics;

impl TunnelMetrics {
    pub(crate) fn new(_: &TunnelInfo, _: NetworkRole, _by_key: bool) -> Self {
        Self
    }

    pub(crate) fn opened(&self) {}

    pub(crate) fn closed(&self, _reason: &'static str, _: Duration) {}

    /// Whether the call is timed.
    pub(crate) fn call_started(&self) -> bool {
        false
    }

    pub(crate) fn call_finished(&self, _: Code, _: Duration) {}

    pub(crate) fn traffic(&self, _: impl FnOnce() -> (Stats, usize)) {}

    pub(crate) fn forget_memory(&self) {}
}

/// The metrics of a memory budget: none.
#[derive(Debug)]
pub(crate) struct BudgetMetrics;

impl BudgetMetrics {
    pub(crate) fn new(_limit: usize) -> Self {
        Self
    }

    pub(crate) fn shed(&self, _calls: usize) {}
}

/// Describes the metrics to the recorder that is installed. Does nothing without the feature `metrics`.
pub fn describe_metrics() {}

/// Counts a tunnel that was not opened. Does nothing without the feature `metrics`.
pub fn not_opened(_: Direction, _: NetworkRole, _outcome: &'static str) {}

/// Counts a tunnel that is opened in place of a lost one. Does nothing without the feature `metrics`.
pub fn reconnecting(_: Direction) {}

/// Records a wait before the next attempt to open a tunnel. Does nothing without the feature `metrics`.
pub fn backing_off(_: Direction, _: Duration) {}

/// Counts a call that no tunnel took.
pub(crate) fn not_sent(_reason: &'static str) {}
