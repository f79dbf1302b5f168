//! What a run measured, as it is kept in memory and written to a file.
//!
//! Invariants: a [`Cell`] has one entry for each measured round, in order, so that entry `i` of two
//! cells of one row were measured in the same round and may be divided by each other.

use serde::{Deserialize, Serialize};

/// Everything one run measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The version of this format: 1.
    pub(crate) format: u32,
    /// When the run began, in RFC 3339.
    pub(crate) began: String,
    /// The commit of this repository, with `-dirty` where files differ from it; none where git does
    /// not say.
    pub(crate) commit: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) rows: Vec<Row>,
}

impl Run {
    /// The version of the format that this program writes, and the only one that it reads.
    pub(crate) const FORMAT: u32 = 1;

    /// What was measured of a workload, if it was.
    pub(crate) fn row(&self, workload: &str, metric: Metric) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.workload == workload && row.metric == metric)
    }

    /// The row that says how fast a workload went, in whatever it counts.
    pub(crate) fn rate_row(&self, workload: &str) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.workload == workload && row.metric.more_is_better())
    }
}

impl Row {
    pub(crate) fn cell(&self, variant: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.variant == variant)
    }
}

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) os: String,
    pub(crate) rustc: String,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Rounds that count, after the one that warms up.
    pub(crate) rounds: u32,
    /// How long a measurement takes, in milliseconds, where it has a fixed time.
    pub(crate) millis: u64,
    pub(crate) quick: bool,
    /// The filter of `--only`, if there was one.
    pub(crate) only: Option<String>,
}

/// One metric of one workload, over all variants that can run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Such as "unary 16 B x 64".
    pub(crate) workload: String,
    /// What belongs together in a report, such as "unary" or "streams".
    pub(crate) group: String,
    pub(crate) metric: Metric,
    pub(crate) cells: Vec<Cell>,
}

/// One variant's measurements in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// The variant's name, such as "plain tonic".
    pub(crate) variant: String,
    /// For each round what was measured, in the metric's unit; none where it came to no end.
    pub(crate) rounds: Vec<Option<f64>>,
    /// Why there is no value, such as "hangs"; of [`Metric::OtherFailures`] what they are.
    pub(crate) note: Option<String>,
}

/// What is measured, and its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Calls, 1/s.
    CallRate,
    /// Messages, 1/s.
    MessageRate,
    /// Payload, B/s.
    ByteRate,
    /// Streams opened, 1/s.
    OpenRate,
    /// Calls that timed out as they were meant to, 1/s.
    TimeoutRate,
    /// Calls that ended otherwise than by their timeout.
    OtherFailures,
    /// Half of the calls are faster; s.
    P50,
    /// s.
    P99,
    /// s.
    P999,
    /// CPU time of both processes for each call, s.
    CpuPerCall,
    /// CPU time of both processes for each byte of payload, s.
    CpuPerByte,
    /// Resident memory of both processes together for each stream, B.
    MemoryPerStream,
    /// From the start of a stream until nine tenths of its steady rate are reached, s.
    Ramp,
}

impl Metric {
    /// Whether more is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::CallRate
                | Self::MessageRate
                | Self::ByteRate
                | Self::OpenRate
                | Self::TimeoutRate
        )
    }
}
