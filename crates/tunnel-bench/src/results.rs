//! The results of a run, in memory and as a JSON file.
//!
//! Invariant: a [`Cell`] has one entry for each counted round, in order. So entries `i` of two
//! cells of a row were measured in the same round and can be divided by each other.

use serde::{Deserialize, Serialize};

/// The results of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The version of this format: 1.
    pub(crate) format: u32,
    /// When the run began, in RFC 3339.
    pub(crate) began: String,
    /// The commit of this repository, with `-dirty` if files differ from it. `None` if git does not
    /// report one.
    pub(crate) commit: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) rows: Vec<Row>,
}

impl Run {
    /// The version of the format that this program writes, and the only one that it reads.
    pub(crate) const FORMAT: u32 = 1;

    /// The row of a workload and metric.
    pub(crate) fn row(&self, workload: &str, metric: Metric) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.workload == workload && row.metric == metric)
    }

    /// The rate row of a workload, in calls, messages, streams, timeouts or bytes.
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

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) os: String,
    pub(crate) rustc: String,
}

/// The settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The number of rounds that count, after the warm-up round.
    pub(crate) rounds: u32,
    /// The duration of measurements of fixed duration, in milliseconds.
    pub(crate) millis: u64,
    pub(crate) quick: bool,
    /// The filter of `--only`, if given.
    pub(crate) only: Option<String>,
}

/// One metric of one workload, for all variants that can run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The name of the workload, such as "unary 16 B x 64".
    pub(crate) workload: String,
    /// The section of the report, such as "unary" or "streams".
    pub(crate) group: String,
    pub(crate) metric: Metric,
    pub(crate) cells: Vec<Cell>,
}

/// One variant's measurements in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// The variant's name, such as "plain tonic".
    pub(crate) variant: String,
    /// The value of each round, in the metric's unit. `None` if the job did not finish.
    pub(crate) rounds: Vec<Option<f64>>,
    /// Why there is no value, such as "hangs". For [`Metric::OtherFailures`] the failures.
    pub(crate) note: Option<String>,
}

/// A metric and its unit.
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
    /// Calls that timed out as intended, 1/s.
    TimeoutRate,
    /// The number of calls that ended in another way than by their timeout.
    OtherFailures,
    /// Median latency, s.
    P50,
    /// 99th percentile of the latency, s.
    P99,
    /// 99.9th percentile of the latency, s.
    P999,
    /// CPU time of both processes for each call, s.
    CpuPerCall,
    /// CPU time of both processes for each byte of payload, s.
    CpuPerByte,
    /// Resident memory of both processes together for each stream, B.
    MemoryPerStream,
    /// The time from the start of a stream until it reaches nine tenths of its steady rate, s.
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
