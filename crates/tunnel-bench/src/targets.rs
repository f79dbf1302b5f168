//! The performance targets, and the verdicts of a run on them.
//!
//! Invariants: forward and reverse tunnels have the same targets. The median decides; the spread is
//! shown too. A variant that was not measured does not change the verdict. Variants with inline
//! handlers are always shown, and have a verdict only if a target names them.

mod table;

use std::cmp::Ordering::Equal;

use crate::report::baseline::{self, TUNNELS, WITH_GO};
use crate::report::stats::{self, Summary};
use crate::report::units;
use crate::report::view::distinct;
use crate::results::{Cell, Metric, Row, Run};

use table::Against::{Baseline, Elsewhere, Nothing, Workload};
use table::Bound::{self, AtLeast, AtMost};
use table::Measure::{self, Of, Rate};
#[cfg(test)]
pub(crate) use table::measured_here;
use table::{TARGETS, Target, WITH_GO_TARGET};

/// Whether a target is reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Reached,
    /// Missed by this fraction of the bound.
    Missed(f64),
    /// The baseline has a value and the variant has none, for this reason.
    Failed(String),
    NotMeasured,
    /// The variant has no bound and is only shown.
    Shown,
}

/// The verdicts on one target for one workload.
pub(crate) struct Judged<'a> {
    pub(crate) workload: &'a str,
    /// The measure, such as "p99".
    pub(crate) measure: &'static str,
    /// The divisor of the ratio.
    pub(crate) against: String,
    /// The bounds, such as "≥ 1.80, inline ≥ 2.20".
    pub(crate) wanted: String,
    pub(crate) variants: Vec<JudgedVariant>,
}

pub(crate) struct JudgedVariant {
    pub(crate) variant: &'static str,
    /// The ratio, or the value if there is no divisor.
    pub(crate) ratio: Option<Summary>,
    pub(crate) verdict: Verdict,
}

impl Target {
    fn judge<'a>(&self, run: &'a Run, workload: &'a str) -> Judged<'a> {
        let variants = TUNNELS.map(|variant| {
            let bound = match variant.ends_with("inline") {
                true => self.inline,
                false => Some(self.spawned),
            };
            let compared = self.cells(run, workload, variant);
            match (self.against, bound) {
                (Nothing, Some(_)) => judge_none(variant, compared.cell),
                _ => judge(variant, bound, compared),
            }
        });
        Judged {
            workload,
            measure: self.measure.label(),
            against: match self.against {
                Baseline => baseline::root(workload).to_owned(),
                Workload(other) => format!("itself in “{other}”"),
                Nothing => "every round".to_owned(),
                Elsewhere(by) => format!("measured {by}"),
            },
            wanted: match (self.against, self.inline) {
                (Elsewhere(_), _) => String::new(),
                (Nothing, _) => "= 0".to_owned(),
                (_, Some(inline)) if inline != self.spawned => {
                    format!("{}, inline {}", self.spawned.text(), inline.text())
                }
                _ => self.spawned.text(),
            },
            variants: variants.into(),
        }
    }

    /// The cell of a variant and the cell of its divisor.
    fn cells<'a>(&self, run: &'a Run, workload: &str, variant: &str) -> Compared<'a> {
        let row = self.measure.row(run, workload);
        let cell = row.and_then(|row| row.cell(variant));
        let base = match self.against {
            Baseline => row.and_then(|row| row.cell(baseline::root(workload))),
            Workload(other) => {
                let other = self.measure.row(run, other);
                other.and_then(|row| row.cell(variant))
            }
            Nothing | Elsewhere(_) => None,
        };
        Compared { cell, base }
    }
}

impl Measure {
    fn label(self) -> &'static str {
        match self {
            Rate => "rate",
            Of(metric) => units::label(metric),
        }
    }

    fn row<'a>(self, run: &'a Run, workload: &str) -> Option<&'a Row> {
        match self {
            Rate => run.rate_row(workload),
            Of(metric) => run.row(workload, metric),
        }
    }
}

impl Bound {
    fn text(self) -> String {
        match self {
            AtLeast(bound) => format!("≥ {}", units::ratio(bound)),
            AtMost(bound) => format!("≤ {}", units::ratio(bound)),
        }
    }

    fn judge(self, ratio: f64) -> Verdict {
        let missed_by = match self {
            AtLeast(bound) => 1.0 - ratio / bound,
            AtMost(bound) => ratio / bound - 1.0,
        };
        match missed_by > 0.0 {
            true => Verdict::Missed(missed_by),
            false => Verdict::Reached,
        }
    }
}

struct Compared<'a> {
    cell: Option<&'a Cell>,
    base: Option<&'a Cell>,
}

fn judge(variant: &'static str, bound: Option<Bound>, compared: Compared<'_>) -> JudgedVariant {
    let Compared { cell, base } = compared;
    let ratio = cell.zip(base);
    let ratio = ratio.and_then(|(cell, base)| stats::ratio(cell, base));
    // A variant that hangs while its baseline has a value has failed; it was not left out.
    let failed = base.and_then(stats::value).and_then(|_| cell?.note.clone());
    let verdict = match (bound, ratio, failed) {
        (Some(bound), Some(ratio), _) => bound.judge(ratio.median),
        (Some(_), None, Some(note)) => Verdict::Failed(note),
        (Some(_), None, None) => Verdict::NotMeasured,
        (None, ..) => Verdict::Shown,
    };
    JudgedVariant {
        variant,
        ratio,
        verdict,
    }
}

/// Judges a cell whose value must be zero.
fn judge_none(variant: &'static str, cell: Option<&Cell>) -> JudgedVariant {
    let ratio = cell.and_then(stats::value);
    let what = cell.and_then(|cell| cell.note.clone());
    JudgedVariant {
        variant,
        ratio,
        verdict: match (what, ratio) {
            (Some(what), _) => Verdict::Failed(what),
            (None, Some(_)) => Verdict::Reached,
            (None, None) => Verdict::NotMeasured,
        },
    }
}

/// Judges a run on every target.
pub(crate) fn judge_all(run: &Run) -> Vec<Judged<'_>> {
    let ours = TARGETS.iter().flat_map(|target| {
        let workloads = target.workloads.iter();
        workloads.map(|workload| target.judge(run, workload))
    });
    ours.chain(with_go(run)).collect()
}

/// Judges the tunnels with the Go program at one end, in each workload that ran with Go at both
/// ends.
fn with_go(run: &Run) -> Vec<Judged<'_>> {
    let is_go = |row: &&Row| row.cell(baseline::GO).is_some();
    let names = run.rows.iter().filter(is_go).map(|row| &*row.workload);
    let names = distinct(names);
    if names.is_empty() {
        return vec![judge_with_go(None, "every workload, with `--go`")];
    }
    let judged = names.into_iter().map(|workload| {
        let rate = run.rate_row(workload);
        judge_with_go(rate.or_else(|| run.row(workload, Metric::P99)), workload)
    });
    judged.collect()
}

fn judge_with_go<'a>(row: Option<&Row>, workload: &'a str) -> Judged<'a> {
    let rate = row.is_none_or(|row| row.metric.more_is_better());
    // For latencies the bound is inverted: lower is better.
    let bound = match (rate, WITH_GO_TARGET) {
        (false, AtLeast(bound)) => AtMost(1.0 / bound),
        (_, bound) => bound,
    };
    let variants = WITH_GO.map(|variant| {
        let base = baseline::of(workload, variant);
        let compared = Compared {
            cell: row.and_then(|row| row.cell(variant)),
            base: row.and_then(|row| row.cell(base?)),
        };
        judge(variant, Some(bound), compared)
    });
    Judged {
        workload,
        measure: match row {
            Some(row) if !rate => units::label(row.metric),
            _ => Rate.label(),
        },
        against: "Go in Go".to_owned(),
        wanted: bound.text(),
        variants: variants.into(),
    }
}

impl Judged<'_> {
    /// The worst verdict of the measured variants.
    pub(crate) fn verdict(&self) -> Verdict {
        let measured = self.variants.iter().map(|variant| &variant.verdict);
        let measured = measured.filter(|v| !matches!(v, Verdict::NotMeasured | Verdict::Shown));
        let worst = measured.max_by(|a, b| a.rank().partial_cmp(&b.rank()).unwrap_or(Equal));
        worst.cloned().unwrap_or(Verdict::NotMeasured)
    }

    /// The variants that have this target but were not measured.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &'static str> {
        let variants = self.variants.iter();
        let left_out = variants.filter(|v| v.verdict == Verdict::NotMeasured);
        left_out.map(|v| v.variant)
    }

    /// Whether the run has a result for this target.
    pub(crate) fn is_measured(&self) -> bool {
        let mut variants = self.variants.iter();
        variants.any(|v| v.ratio.is_some() || matches!(v.verdict, Verdict::Failed(_)))
    }
}

impl Verdict {
    fn rank(&self) -> (u8, f64) {
        match self {
            Self::Reached | Self::NotMeasured | Self::Shown => (0, 0.0),
            Self::Missed(by) => (1, *by),
            Self::Failed(_) => (2, 0.0),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Reached => "reached".to_owned(),
            // Do not round a small miss to "missed by 0 %".
            Self::Missed(by) if *by < 0.01 => "missed by <1 %".to_owned(),
            Self::Missed(by) => format!("missed by {:.0} %", by * 100.0),
            Self::Failed(why) => format!("missed: {why}"),
            Self::NotMeasured => "not measured".to_owned(),
            Self::Shown => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row, run};

    /// Judges a run on the target for this workload and measure.
    fn verdict(run: &Run, workload: &str, measure: &str) -> Judged<'static> {
        let run = Box::leak(Box::new(run.clone()));
        let mut judged = judge_all(run).into_iter();
        let found = judged.find(|j| j.workload == workload && j.measure == measure);
        found.expect("there is such a target")
    }

    fn rate(workload: &str, cells: Vec<Cell>) -> Row {
        row(workload, Metric::CallRate, cells)
    }

    #[test]
    fn the_median_decides_and_each_kind_of_handler_has_its_own_bound() {
        let cells = vec![
            cell("plain tonic", &[1.0, 1.0, 1.0]),
            cell("forward tunnel", &[1.7, 1.9, 2.0]),
            cell("reverse tunnel", &[1.8, 1.8, 1.8]),
            cell("forward inline", &[1.98, 1.98, 1.98]),
            cell("reverse inline", &[2.3, 2.3, 2.3]),
        ];
        let run = run(vec![rate("unary 16 B x 64", cells)]);
        let judged = verdict(&run, "unary 16 B x 64", "rate");
        let texts: Vec<_> = judged.variants.iter().map(|v| v.verdict.text()).collect();
        assert_eq!(texts, ["reached", "reached", "missed by 10 %", "reached"]);
        assert_eq!(judged.wanted, "≥ 1.80, inline ≥ 2.20");
        assert_eq!(judged.verdict().text(), "missed by 10 %");
    }

    #[test]
    fn a_figure_that_must_be_small_is_missed_when_it_is_larger() {
        assert_eq!(AtMost(0.5).judge(0.6).text(), "missed by 20 %");
        assert_eq!(AtMost(0.5).judge(0.5), Verdict::Reached);
        assert_eq!(AtLeast(1.0).judge(0.999).text(), "missed by <1 %");
    }

    #[test]
    fn an_unmeasured_target_is_neither_reached_nor_missed() {
        let judged = verdict(&run(Vec::new()), "download 1 MiB x 8", "rate");
        assert_eq!(judged.verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn variants_that_were_left_out_do_not_hide_the_verdict_on_the_others() {
        let of = |forward, reverse| {
            let cells = vec![
                cell("plain tonic", &[1.0]),
                cell("forward tunnel", &[forward]),
                cell("reverse tunnel", &[reverse]),
            ];
            let run = run(vec![rate("unary 16 B x 64", cells)]);
            verdict(&run, "unary 16 B x 64", "rate")
        };
        assert_eq!(of(9.0, 9.0).verdict(), Verdict::Reached);
        let left_out: Vec<_> = of(9.0, 9.0).left_out().collect();
        assert_eq!(left_out, ["forward inline", "reverse inline"]);
        assert_eq!(of(9.0, 0.9).verdict().text(), "missed by 50 %");
    }

    #[test]
    fn one_failure_that_is_no_timeout_is_enough_to_miss() {
        let name = "brownout, 100 callers, dropped after 50 ms";
        let of = |note: Option<&str>| {
            let mut forward = cell("forward tunnel", &[0.0, 0.0, 0.0]);
            forward.note = note.map(str::to_owned);
            let cells = vec![forward, cell("reverse tunnel", &[0.0; 3])];
            let run = run(vec![row(name, Metric::OtherFailures, cells)]);
            verdict(&run, name, "other failures").verdict().text()
        };
        assert_eq!(of(None), "reached");
        let ended = "1 × Unavailable: the tunnel has ended";
        assert_eq!(of(Some(ended)), format!("missed: {ended}"));
    }

    #[test]
    fn a_tunnel_that_hangs_where_its_baseline_does_not_has_missed() {
        let cells = vec![cell("plain tonic", &[1.0]), hangs("forward tunnel")];
        let run = run(vec![rate("download 1 MiB x 8", cells)]);
        let judged = verdict(&run, "download 1 MiB x 8", "rate");
        assert_eq!(judged.verdict().text(), "missed: hangs");
    }

    #[test]
    fn calls_beside_unread_streams_are_compared_with_those_without() {
        let of = |streams, rate_of: f64| {
            let name = format!("unary 16 B x 16 beside {streams} unread streams");
            let tunnels = TUNNELS.map(|variant| cell(variant, &[rate_of]));
            let mut cells = vec![hangs("plain tonic")];
            cells.extend(tunnels);
            rate(&name, cells)
        };
        let run = run(vec![of(0, 100.0), of(64, 90.0)]);
        let judged = verdict(&run, "unary 16 B x 16 beside 64 unread streams", "rate");
        assert_eq!(judged.verdict(), Verdict::Reached);
    }

    #[test]
    fn tunnels_to_go_are_compared_with_go_in_go_wherever_it_ran() {
        let mut cells = vec![cell("go in go", &[1.0]), cell("go in go reverse", &[4.0])];
        cells.extend(WITH_GO.map(|variant| cell(variant, &[2.0])));
        let run = run(vec![rate("ping-pong 16 B x 1", cells)]);
        let judged = verdict(&run, "ping-pong 16 B x 1", "rate");
        let texts: Vec<_> = judged.variants.iter().map(|v| v.verdict.text()).collect();
        assert_eq!(
            texts,
            ["reached", "reached", "missed by 50 %", "missed by 50 %"]
        );
    }
}
