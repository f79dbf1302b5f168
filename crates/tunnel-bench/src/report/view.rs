//! The structure of a report: sections, panels of variants with the same baseline, lines and
//! readings.
//!
//! Invariants: no measurement is left out, and everything stays in the order of the run. A [`Line`]
//! has one reading for each variant of its [`Panel`], the baseline's first.

use super::baseline;
use super::stats::{self, Summary};
use crate::results::{Cell, Metric, Row, Run};

/// A group of workloads.
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) panels: Vec<Panel<'a>>,
}

/// The variants that are compared with one baseline.
pub(crate) struct Panel<'a> {
    pub(crate) base: &'static str,
    /// The baseline first.
    pub(crate) variants: Vec<&'a str>,
    pub(crate) lines: Vec<Line<'a>>,
}

/// One metric of one workload.
pub(crate) struct Line<'a> {
    pub(crate) workload: &'a str,
    pub(crate) metric: Metric,
    pub(crate) readings: Vec<Reading<'a>>,
}

/// The result of one variant in a line.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) variant: &'a str,
    pub(crate) value: Option<Summary>,
    /// The ratio to the baseline. `None` for the baseline itself, or if either has no value.
    pub(crate) ratio: Option<Summary>,
    pub(crate) note: Option<&'a str>,
}

/// A variant compared with the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Better in every round.
    Better,
    /// Worse in every round.
    Worse,
    /// The rounds disagree.
    Even,
}

pub(crate) fn sections(run: &Run) -> Vec<Section<'_>> {
    let names = distinct(run.rows.iter().map(|row| row.group.as_str()));
    let section = |name| {
        let of_it = run.rows.iter().filter(|row| row.group == name);
        Section {
            name,
            panels: panels(&of_it.collect::<Vec<_>>()),
        }
    };
    names.into_iter().map(section).collect()
}

fn panels<'a>(rows: &[&'a Row]) -> Vec<Panel<'a>> {
    let cells = rows
        .iter()
        .flat_map(|row| row.cells.iter().map(move |cell| (*row, cell)));
    // The root has its own panel even if nothing else was measured.
    let bases = distinct(cells.map(|(row, cell)| base_or_root(row, cell)));
    let panels = bases.into_iter().map(|base| panel(base, rows));
    panels.collect()
}

fn base_or_root(row: &Row, cell: &Cell) -> &'static str {
    baseline::of(&row.workload, &cell.variant).unwrap_or_else(|| baseline::root(&row.workload))
}

fn panel<'a>(base: &'static str, rows: &[&'a Row]) -> Panel<'a> {
    let belongs = |row: &Row, cell: &Cell| base_or_root(row, cell) == base;
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row.cells.iter().any(|cell| belongs(row, cell)))
        .collect();
    let others = rows.iter().flat_map(|row| {
        let cells = row.cells.iter().filter(|cell| belongs(row, cell));
        cells.map(|cell| cell.variant.as_str())
    });
    let variants = distinct(std::iter::once(base).chain(others));
    let lines = rows.iter().map(|row| line(row, &variants)).collect();
    Panel {
        base,
        variants,
        lines,
    }
}

fn line<'a>(row: &'a Row, variants: &[&'a str]) -> Line<'a> {
    let base = row.cell(variants[0]);
    let readings = variants.iter().map(|variant| reading(row, variant, base));
    Line {
        workload: &row.workload,
        metric: row.metric,
        readings: readings.collect(),
    }
}

fn reading<'a>(row: &'a Row, variant: &'a str, base: Option<&Cell>) -> Reading<'a> {
    let cell = row.cell(variant);
    let is_base = base.is_some_and(|base| base.variant == variant);
    let ratio = cell.zip(base).filter(|_| !is_base);
    Reading {
        variant,
        value: cell.and_then(stats::value),
        ratio: ratio.and_then(|(cell, base)| stats::ratio(cell, base)),
        note: cell.and_then(|cell| cell.note.as_deref()),
    }
}

impl Reading<'_> {
    /// Compares with the baseline, over all rounds.
    pub(crate) fn standing(&self, metric: Metric) -> Standing {
        let Some(ratio) = self.ratio else {
            return Standing::Even;
        };
        match (ratio.low > 1.0, ratio.high < 1.0) {
            (false, false) => Standing::Even,
            (above, _) if above == metric.more_is_better() => Standing::Better,
            _ => Standing::Worse,
        }
    }
}

/// The distinct items, in order of first appearance.
pub(crate) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, row, run};

    #[test]
    fn each_variant_stands_beside_its_baseline() {
        let variants = ["plain tonic", "forward tunnel", "plain go", "go in go"];
        let cells = variants.map(|variant| cell(variant, &[1.0])).to_vec();
        let run = run(vec![row("unary 16 B x 1", Metric::CallRate, cells)]);
        let sections = sections(&run);
        let panels: Vec<_> = sections[0].panels.iter().map(|p| &p.variants[..]).collect();
        let tonic: &[_] = &["plain tonic", "forward tunnel", "plain go"];
        assert_eq!(panels, [tonic, &["plain go", "go in go"]]);
    }

    #[test]
    fn a_baseline_that_was_not_measured_leaves_values_without_ratios() {
        let cells = vec![cell("forward tunnel", &[3.0])];
        let run = run(vec![row("unary 16 B x 1", Metric::CallRate, cells)]);
        let sections = sections(&run);
        let readings = &sections[0].panels[0].lines[0].readings;
        assert_eq!(readings[0].variant, "plain tonic");
        assert!(readings[0].value.is_none() && readings[1].ratio.is_none());
        assert_eq!(readings[1].value.map(|v| v.median), Some(3.0));
    }

    #[test]
    fn a_variant_is_better_only_where_it_is_so_in_every_round() {
        let standing = |metric, rounds: &[f64]| {
            let base = cell("plain tonic", &[1.0, 1.0]);
            let cells = vec![base, cell("forward tunnel", rounds)];
            let row = row("unary 16 B x 1", metric, cells);
            reading(&row, "forward tunnel", row.cell("plain tonic")).standing(metric)
        };
        assert_eq!(standing(Metric::CallRate, &[1.1, 2.0]), Standing::Better);
        assert_eq!(standing(Metric::CallRate, &[0.9, 2.0]), Standing::Even);
        assert_eq!(standing(Metric::P99, &[1.1, 2.0]), Standing::Worse);
        assert_eq!(standing(Metric::P99, &[0.2, 0.9]), Standing::Better);
    }
}
