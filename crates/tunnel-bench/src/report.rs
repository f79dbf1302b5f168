//! The table.

use std::fmt;

use crate::workload::{Unit, Workload};

/// The measurements of one workload, a pair for each round.
struct Row {
    name: &'static str,
    unit: Unit,
    pairs: Vec<(f64, f64)>,
}

/// All measurements.
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(workloads: &[&Workload]) -> Self {
        let row = |w: &&Workload| Row {
            name: w.name,
            unit: w.unit,
            pairs: Vec::new(),
        };
        Self {
            rows: workloads.iter().map(row).collect(),
        }
    }

    pub(crate) fn add(&mut self, row: usize, plain: f64, tunnel: f64) {
        self.rows[row].pairs.push((plain, tunnel));
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rate(value: f64, unit: Unit) -> String {
    let (value, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let unit = match unit {
        Unit::Bytes => "B/s",
        Unit::Calls => "calls/s",
        Unit::Messages => "msg/s",
    };
    format!("{value:.2} {prefix}{unit}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| workload | plain tonic | forward tunnel | ratio | spread |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for Row { name, unit, pairs } in &self.rows {
            let ratios: Vec<f64> = pairs.iter().map(|(p, t)| t / p).collect();
            let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let high = ratios.iter().copied().fold(0.0, f64::max);
            writeln!(
                f,
                "| {name} | {} | {} | {:.2} | {low:.2}–{high:.2} |",
                rate(median(pairs.iter().map(|p| p.0)), *unit),
                rate(median(pairs.iter().map(|p| p.1)), *unit),
                median(ratios.into_iter()),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_is_its_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert!(median([].into_iter()).is_nan());
    }
}
