//! The table.

use std::fmt;

use crate::VARIANTS;
use crate::workload::{Unit, Workload};

/// The measurements of one workload: for each round those of all variants.
struct Row {
    name: &'static str,
    unit: Unit,
    rounds: Vec<[f64; VARIANTS.len()]>,
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
            rounds: Vec::new(),
        };
        Self {
            rows: workloads.iter().map(row).collect(),
        }
    }

    pub(crate) fn add(&mut self, row: usize, rates: [f64; VARIANTS.len()]) {
        self.rows[row].rounds.push(rates);
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

impl Row {
    fn rate(&self, variant: usize) -> String {
        rate(median(self.rounds.iter().map(|r| r[variant])), self.unit)
    }

    /// A variant's ratio to the first one, formed within each round: the median and the spread.
    fn ratio(&self, variant: usize) -> String {
        let ratios: Vec<f64> = self.rounds.iter().map(|r| r[variant] / r[0]).collect();
        let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let high = ratios.iter().copied().fold(0.0, f64::max);
        let median = median(ratios.into_iter());
        format!("{median:.2} ({low:.2}–{high:.2})")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| workload | {} |", VARIANTS[0])?;
        for name in &VARIANTS[1..] {
            write!(f, " {name} | ratio (spread) |")?;
        }
        writeln!(f, "\n|---|---|{}", "---|---|".repeat(VARIANTS.len() - 1))?;
        for row in &self.rows {
            write!(f, "| {} | {} |", row.name, row.rate(0))?;
            for variant in 1..VARIANTS.len() {
                write!(f, " {} | {} |", row.rate(variant), row.ratio(variant))?;
            }
            writeln!(f)?;
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
