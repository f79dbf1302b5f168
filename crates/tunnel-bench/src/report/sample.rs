//! Sample runs for tests.

use crate::results::{Cell, Machine, Metric, Row, Run, Settings};

pub(crate) fn run(rows: Vec<Row>) -> Run {
    Run {
        format: Run::FORMAT,
        began: "2026-01-02T03:04:05Z".to_owned(),
        commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        machine: Machine {
            cpu: "Example CPU @ 2.00GHz".to_owned(),
            cores: 2,
            os: "Linux 6.1".to_owned(),
            rustc: "rustc 1.95.0".to_owned(),
        },
        settings: Settings {
            rounds: 7,
            millis: 700,
            quick: false,
            only: None,
        },
        rows,
    }
}

pub(crate) fn row(workload: &str, metric: Metric, cells: Vec<Cell>) -> Row {
    let group = workload.split(' ').next().unwrap_or_default();
    Row {
        workload: workload.to_owned(),
        group: group.to_owned(),
        metric,
        cells,
    }
}

pub(crate) fn cell(variant: &str, rounds: &[f64]) -> Cell {
    Cell {
        variant: variant.to_owned(),
        rounds: rounds.iter().copied().map(Some).collect(),
        note: None,
    }
}

/// A cell in which no round finished.
pub(crate) fn hangs(variant: &str) -> Cell {
    Cell {
        variant: variant.to_owned(),
        rounds: vec![None; 3],
        note: Some("hangs".to_owned()),
    }
}
