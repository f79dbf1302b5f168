//! The tables of verdicts on the targets.

use super::grid::{Grid, Text, Tone};
use super::units;
use crate::results::Run;
use crate::targets::{Judged, JudgedVariant, Verdict, judge_all};

/// A line with the counts, and two tables: one for tunnels in Rust, one for tunnels with Go at one
/// end.
pub(crate) struct Verdicts {
    pub(crate) counts: String,
    pub(crate) grids: Vec<Grid>,
}

/// The verdicts on every target.
pub(crate) fn of(run: &Run) -> Verdicts {
    let judged = judge_all(run);
    Verdicts {
        counts: counts(&judged),
        grids: grids(&judged),
    }
}

/// The verdicts with tables of the measured targets only. The counts include all targets.
pub(crate) fn of_measured(run: &Run) -> Verdicts {
    let mut judged = judge_all(run);
    let counts = counts(&judged);
    judged.retain(Judged::is_measured);
    Verdicts {
        counts,
        grids: grids(&judged),
    }
}

fn grids(judged: &[Judged<'_>]) -> Vec<Grid> {
    let same_variants = |a: &Judged<'_>, b: &Judged<'_>| names(a).eq(names(b));
    judged.chunk_by(same_variants).map(grid).collect()
}

fn names(judged: &Judged<'_>) -> impl Iterator<Item = &'static str> {
    judged.variants.iter().map(|variant| variant.variant)
}

fn counts(judged: &[Judged<'_>]) -> String {
    let mut counts = [0; 3];
    for judged in judged {
        counts[match judged.verdict() {
            Verdict::Reached | Verdict::Shown => 0,
            Verdict::Missed(_) | Verdict::Failed(_) => 1,
            Verdict::NotMeasured => 2,
        }] += 1;
    }
    let [reached, missed, not_measured] = counts;
    format!("{reached} reached, {missed} missed, {not_measured} not measured")
}

fn grid(judged: &[Judged<'_>]) -> Grid {
    let variants = judged.first().map(names).into_iter().flatten();
    let head = ["workload", "verdict", "target"].into_iter();
    let mut grid = Grid::new(3, head.chain(variants));
    grid.rows.extend(judged.iter().map(row));
    grid
}

fn row(judged: &Judged<'_>) -> Vec<Text> {
    let verdict = judged.verdict();
    let tone = match verdict {
        Verdict::Reached => Tone::Good,
        Verdict::Missed(_) | Verdict::Failed(_) => Tone::Bad,
        Verdict::NotMeasured | Verdict::Shown => Tone::Plain,
    };
    let target = format!("{} {}", judged.measure, judged.wanted);
    let target = Text::new(target.trim_end()).small(match judged.wanted.is_empty() {
        true => judged.against.clone(),
        false => format!("of {}", judged.against),
    });
    let left_out: Vec<_> = judged.left_out().collect();
    let verdict = match verdict {
        Verdict::NotMeasured => Text::new(verdict.text()),
        _ if left_out.is_empty() => Text::new(verdict.text()),
        _ => Text::new(verdict.text()).small(format!("without {}", left_out.join(", "))),
    };
    let mut row = vec![Text::new(judged.workload), verdict.tone(tone), target];
    row.extend(judged.variants.iter().map(variant));
    row
}

fn variant(judged: &JudgedVariant) -> Text {
    let text = match (&judged.ratio, &judged.verdict) {
        (Some(ratio), _) => Text::new(units::ratio(ratio.median)).small(units::ratio_spread(ratio)),
        (None, Verdict::Failed(why)) => Text::new(why.as_str()),
        (None, _) => Text::new("–"),
    };
    text.tone(match judged.verdict {
        Verdict::Missed(_) | Verdict::Failed(_) => Tone::Bad,
        _ => Tone::Plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, row, run};
    use crate::results::Metric;

    #[test]
    fn a_verdict_names_the_variants_that_were_left_out() {
        let cells = ["plain tonic", "forward tunnel"].map(|variant| cell(variant, &[1.0]));
        let run = run(vec![row(
            "download 1 MiB x 1",
            Metric::ByteRate,
            cells.into(),
        )]);
        let grid = &of_measured(&run).grids[0];
        let line = "| download 1 MiB x 1 | reached (without reverse tunnel) |";
        assert!(grid.markdown().contains(line), "{}", grid.markdown());
    }

    #[test]
    fn every_target_has_a_line_and_go_has_a_table_of_its_own() {
        let cells = vec![
            cell("plain tonic", &[2.0]),
            cell("forward tunnel", &[1.0]),
            cell("reverse tunnel", &[1.0]),
        ];
        let run = run(vec![row("unary 16 B x 1", Metric::P50, cells)]);
        let verdicts = of(&run);
        assert!(
            verdicts.counts.starts_with("1 reached, 0 missed"),
            "{}",
            verdicts.counts
        );
        let [ours, go] = &verdicts.grids[..] else {
            panic!("there are two tables");
        };
        let line = "| unary 16 B x 1 | reached | p50 ≤ 1.00 (of plain tonic) | 0.50 (0.50–0.50) |";
        assert!(ours.markdown().contains(line), "{}", ours.markdown());
        assert!(
            go.markdown().contains("| rust calls go |"),
            "{}",
            go.markdown()
        );
        let [measured] = &of_measured(&run).grids[..] else {
            panic!("Go was not measured");
        };
        assert_eq!(measured.rows.len(), 1);
    }
}
