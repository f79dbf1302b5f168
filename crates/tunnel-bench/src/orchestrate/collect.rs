//! Collects the measurements of jobs into rows.
//!
//! Invariant: the cells of a row have one entry for each round that counts. The entry is `None` if
//! the job did not finish, and a cell without any value has a note.

use std::time::Duration;

use super::pair::Failure;
use super::workload::{RowOf, Workload};
use crate::job::{Job, Kind, Measured};
use crate::results::{Cell, Metric, Row};
use crate::variant::Variant;

/// The measurements of one job, by the client and from outside.
#[derive(Clone, Debug)]
pub(super) struct Sample<'a> {
    pub(super) job: &'a Job,
    pub(super) measured: Measured,
    /// CPU time of both processes.
    pub(super) cpu: Option<Duration>,
    /// The growth of the memory of both processes, in bytes.
    pub(super) grown: Option<f64>,
}

impl Sample<'_> {
    /// The value of a metric, if the job has it.
    pub(super) fn value(&self, metric: Metric, row: &RowOf) -> Option<f64> {
        let measured = &self.measured;
        let count = measured.count as f64;
        let bytes = count * f64::from(row.size);
        let cpu = self.cpu.map(|cpu| cpu.as_secs_f64());
        let value = match metric {
            Metric::CallRate | Metric::MessageRate | Metric::OpenRate | Metric::TimeoutRate => {
                count / measured.seconds
            }
            Metric::OtherFailures => measured.failures.values().sum::<u64>() as f64,
            Metric::ByteRate => match (&measured.buckets, measured.beside_bytes) {
                (Some(buckets), _) => self.bytes_of(buckets).steady()?,
                (None, Some(beside)) => beside as f64 / measured.seconds,
                (None, None) => bytes / measured.seconds,
            },
            Metric::P50 => measured.p50?,
            Metric::P99 => measured.p99?,
            Metric::P999 => measured.p999?,
            Metric::CpuPerCall => cpu? / count,
            Metric::CpuPerByte => cpu? / bytes,
            Metric::MemoryPerStream => self.grown? / count,
            Metric::Ramp => self.bytes_of(measured.buckets.as_ref()?).ramp()?,
        };
        value.is_finite().then_some(value)
    }

    fn bytes_of(&self, buckets: &[u64]) -> Buckets {
        let (seconds, each) = match self.job {
            Job::Steady(job) => {
                let each = match job.kind {
                    Kind::Unary => f64::from(job.size),
                    Kind::Download | Kind::Upload => 1.0,
                };
                (job.bucket_millis as f64 / 1e3, each)
            }
            _ => (1.0, 1.0),
        };
        Buckets {
            seconds,
            bytes: buckets.iter().map(|n| *n as f64 * each).collect(),
        }
    }
}

/// The bytes that arrived in each bucket of time.
struct Buckets {
    seconds: f64,
    bytes: Vec<f64>,
}

impl Buckets {
    /// The mean rate over the second half, in bytes a second. A mean, because a slow variant
    /// receives only about one message of 1 MiB in a bucket, so single buckets vary much.
    fn steady(&self) -> Option<f64> {
        let last = &self.bytes[self.bytes.len() / 2..];
        let bytes: f64 = last.iter().sum();
        (bytes > 0.0).then(|| bytes / (last.len() as f64 * self.seconds))
    }

    /// The end of the first bucket that reached nine tenths of the steady rate, in seconds.
    fn ramp(&self) -> Option<f64> {
        let enough = self.steady()? * self.seconds * 0.9;
        let first = self.bytes.iter().position(|bytes| *bytes >= enough)?;
        Some((first + 1) as f64 * self.seconds)
    }
}

/// All rows, filled round by round.
pub(super) struct Collector {
    rows: Vec<Row>,
    rounds: usize,
}

impl Collector {
    /// Makes an empty row for every metric of every workload.
    pub(super) fn new(workloads: &[Workload], variants: &[Variant], rounds: usize) -> Self {
        let mut rows = Vec::new();
        for workload in workloads {
            let variants: Vec<_> = variants.iter().filter(|v| (workload.who)(v)).collect();
            for row in workload.rows() {
                for metric in row.metrics {
                    rows.push(Row {
                        workload: row.name.clone(),
                        group: workload.group.to_owned(),
                        metric: *metric,
                        cells: variants.iter().map(|v| empty(v, rounds)).collect(),
                    });
                }
            }
        }
        Self { rows, rounds }
    }

    fn cell(&mut self, row: &RowOf, metric: Metric, variant: &Variant) -> Option<&mut Cell> {
        let mut rows = self.rows.iter_mut();
        let row = rows.find(|r| r.metric == metric && r.workload == row.name)?;
        row.cells.iter_mut().find(|c| c.variant == variant.name)
    }

    /// Records the measurements of a round, counted from 0.
    pub(super) fn add(
        &mut self,
        round: usize,
        row: &RowOf,
        variant: &Variant,
        sample: &Sample<'_>,
    ) {
        for metric in row.metrics {
            let value = sample.value(*metric, row);
            if let Some(cell) = self.cell(row, *metric, variant) {
                cell.rounds[round] = value;
            }
        }
    }

    /// Records unexpected failures, in any round including the warm-up.
    pub(super) fn note_failures(&mut self, row: &RowOf, variant: &Variant, what: String) {
        if let Some(cell) = self.cell(row, Metric::OtherFailures, variant) {
            cell.note.get_or_insert(what);
        }
    }

    /// Records why a row has no value.
    pub(super) fn fail(&mut self, row: &RowOf, variant: &Variant, note: &str) {
        for metric in row.metrics {
            if let Some(cell) = self.cell(row, *metric, variant) {
                cell.note = Some(note.to_owned());
            }
        }
    }

    /// The rows, without those that have neither values nor notes: metrics that this system does
    /// not provide.
    pub(super) fn finish(mut self) -> Vec<Row> {
        debug_assert!(
            self.rows
                .iter()
                .flat_map(|r| &r.cells)
                .all(|c| c.rounds.len() == self.rounds)
        );
        let untold = |row: &Row| {
            let mut cells = row.cells.iter();
            cells.all(|c| c.note.is_none() && c.rounds.iter().all(Option::is_none))
        };
        self.rows.retain(|row| !untold(row));
        for cell in self.rows.iter_mut().flat_map(|row| &mut row.cells) {
            if cell.note.is_none() && cell.rounds.iter().all(Option::is_none) {
                cell.note = Some("no value".to_owned());
            }
        }
        self.rows
    }
}

fn empty(variant: &Variant, rounds: usize) -> Cell {
    Cell {
        variant: variant.name.to_owned(),
        rounds: vec![None; rounds],
        note: None,
    }
}

impl Failure {
    /// The note of a cell.
    pub(super) fn note(&self) -> &'static str {
        match self {
            Self::Hangs => "hangs",
            Self::Failed(_) => "fails",
            Self::NotStarted(_) => "does not start",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Steady;

    fn steady(kind: Kind) -> Job {
        Job::Steady(Steady {
            kind,
            size: 1000,
            at_once: 1,
            millis: 600,
            bucket_millis: 100,
        })
    }

    fn row() -> RowOf {
        RowOf {
            name: "a row".to_owned(),
            metrics: &[],
            size: 1000,
        }
    }

    fn sample(job: &Job, measured: Measured) -> Sample<'_> {
        Sample {
            job,
            measured,
            cpu: Some(Duration::from_secs(2)),
            grown: Some(5000.0),
        }
    }

    #[test]
    fn a_streams_steady_rate_is_that_of_its_last_half_and_its_ramp_ends_near_it() {
        let job = steady(Kind::Download);
        let buckets = Some(vec![0, 100, 800, 1000, 900, 1100]);
        let sample = sample(
            &job,
            Measured {
                buckets,
                ..Measured::default()
            },
        );
        let rate = sample.value(Metric::ByteRate, &row()).unwrap();
        assert!((rate - 10_000.0).abs() < 1e-6, "{rate}");
        let ramp = sample.value(Metric::Ramp, &row()).unwrap();
        assert!((ramp - 0.4).abs() < 1e-9, "{ramp}");
    }

    #[test]
    fn calls_in_buckets_count_with_their_payload() {
        let job = steady(Kind::Unary);
        let buckets = Some(vec![1, 1, 1, 2, 2, 2]);
        let sample = sample(
            &job,
            Measured {
                buckets,
                ..Measured::default()
            },
        );
        let rate = sample.value(Metric::ByteRate, &row()).unwrap();
        assert!((rate - 20_000.0).abs() < 1e-6, "{rate}");
    }

    #[test]
    fn a_stream_on_which_nothing_came_has_no_rate() {
        let job = steady(Kind::Upload);
        let buckets = Some(vec![7, 0, 0, 0]);
        let sample = sample(
            &job,
            Measured {
                buckets,
                ..Measured::default()
            },
        );
        assert_eq!(sample.value(Metric::ByteRate, &row()), None);
        assert_eq!(sample.value(Metric::Ramp, &row()), None);
    }

    #[test]
    fn time_and_memory_are_shared_among_what_was_counted() {
        let job = Job::Release {};
        let measured = Measured {
            count: 50,
            seconds: 0.5,
            ..Measured::default()
        };
        let sample = sample(&job, measured);
        assert_eq!(sample.value(Metric::CallRate, &row()), Some(100.0));
        assert_eq!(sample.value(Metric::CpuPerCall, &row()), Some(0.04));
        assert_eq!(sample.value(Metric::MemoryPerStream, &row()), Some(100.0));
        assert_eq!(sample.value(Metric::P99, &row()), None);
    }

    #[test]
    fn a_job_that_counted_nothing_has_no_cost_for_each() {
        let job = Job::Release {};
        let sample = sample(
            &job,
            Measured {
                seconds: 0.5,
                ..Measured::default()
            },
        );
        assert_eq!(sample.value(Metric::CpuPerCall, &row()), None);
    }
}
