//! Compares a run with an earlier one.
//!
//! The machine may differ, or be more or less busy. The main comparison is therefore between the
//! ratios to plain tonic, each in its own run: what changed for both cancels out. The values
//! follow; they mean something only on the same machine.
//!
//! Invariant: a change counts only if it exceeds the spread, that is, if every round of one run is
//! above every round of the other. With few rounds this happens by chance, so then the medians must
//! also be further apart than the rounds of either run.

use std::fmt::{self, Write as _};

use super::grid::{Grid, Text, Tone};
use super::stats::{self, Summary};
use super::view::distinct;
use super::{baseline, facts, units};
use crate::results::{Cell, Metric, Row, Run};

/// The cells of a variant and row in both runs.
struct Pair<'a> {
    workload: &'a str,
    metric: Metric,
    variant: &'a str,
    values: Change,
    /// The change of the ratio to plain tonic.
    ratios: Option<Change>,
}

#[derive(Clone, Copy)]
struct Change {
    before: Summary,
    now: Summary,
}

/// Whether a value changed by more than the spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Better,
    Worse,
    Same,
    /// There are too few rounds for a spread.
    Unknown,
}

/// With fewer rounds the spread means nothing.
const FEWEST_ROUNDS: usize = 3;

/// With fewer rounds the rounds of two equal runs often do not overlap by chance: once in ten times
/// with three rounds each, once in a hundred with five.
const ENOUGH_ROUNDS: usize = 5;

pub(crate) fn text(now: &Run, before: &Run) -> String {
    let pairs = pairs(now, before);
    let mut text = String::new();
    write(&mut text, now, before, &pairs).expect("writing to a string never fails");
    text
}

fn write(text: &mut String, now: &Run, before: &Run, pairs: &[Pair<'_>]) -> fmt::Result {
    writeln!(text, "Compared with the run of {}:\n", facts::began(before))?;
    write_differences(text, now, before)?;
    if pairs.is_empty() {
        return writeln!(text, "The two runs have nothing in common.");
    }
    writeln!(
        text,
        "Change of the ratio to plain tonic (to tuned tonic on the long link), and of the value \
         itself in the second line:\n\n{}",
        grid(pairs).terminal()
    )?;
    for (mark, title) in [(Mark::Better, "Better"), (Mark::Worse, "Worse")] {
        write_list(text, pairs, mark, title)?;
    }
    let unknown = pairs.iter().filter(|p| p.mark() == Mark::Unknown).count();
    if unknown > 0 {
        writeln!(
            text,
            "\nOf {unknown}, one of the runs has fewer than {FEWEST_ROUNDS} rounds: no spread to \
             compare a change with."
        )?;
    }
    Ok(())
}

/// Writes the differences in settings and machine, which may explain a change.
fn write_differences(text: &mut String, now: &Run, before: &Run) -> fmt::Result {
    let earlier = facts::of(before);
    for (name, value) in facts::of(now) {
        let before = earlier.iter().find(|(n, _)| *n == name);
        let before = before.map_or("–", |(_, value)| value);
        if before != value && name != "began" {
            writeln!(text, "  {name}: {before} → {value}")?;
        }
    }
    if facts::cpu(now) != facts::cpu(before) {
        writeln!(
            text,
            "  The machines differ: only ratios can be compared, not values."
        )?;
    }
    writeln!(text)
}

fn pairs<'a>(now: &'a Run, before: &'a Run) -> Vec<Pair<'a>> {
    let rows = now.rows.iter().filter_map(|row| {
        let earlier = before.row(&row.workload, row.metric)?;
        Some((row, earlier))
    });
    let pairs = rows.flat_map(|(row, earlier)| {
        let cells = row.cells.iter();
        cells.filter_map(move |cell| pair(row, cell, earlier))
    });
    pairs.collect()
}

fn pair<'a>(row: &'a Row, cell: &'a Cell, earlier: &Row) -> Option<Pair<'a>> {
    let before = earlier.cell(&cell.variant)?;
    let values = Change {
        before: stats::value(before)?,
        now: stats::value(cell)?,
    };
    Some(Pair {
        workload: &row.workload,
        metric: row.metric,
        variant: &cell.variant,
        values,
        ratios: ratio_to_root(earlier, before)
            .zip(ratio_to_root(row, cell))
            .map(|(before, now)| Change { before, now }),
    })
}

/// The ratio to the root baseline, even for variants whose baseline is Go: their own baseline may
/// have changed too.
fn ratio_to_root(row: &Row, cell: &Cell) -> Option<Summary> {
    let root = baseline::root(&row.workload);
    let base = row.cell(root).filter(|base| base.variant != cell.variant)?;
    stats::ratio(cell, base)
}

impl Change {
    fn ratio(&self) -> f64 {
        self.now.median / self.before.median
    }

    fn mark(&self, metric: Metric) -> Mark {
        let Self { before, now } = self;
        let rounds = before.rounds.min(now.rounds);
        if rounds < FEWEST_ROUNDS {
            return Mark::Unknown;
        }
        let widest = (now.high - now.low).max(before.high - before.low);
        let far = rounds >= ENOUGH_ROUNDS || (now.median - before.median).abs() > widest;
        let (up, down) = (now.low > before.high, now.high < before.low);
        match far && (up || down) {
            false => Mark::Same,
            true if up == metric.more_is_better() => Mark::Better,
            true => Mark::Worse,
        }
    }
}

impl Pair<'_> {
    /// Judges by the ratio, or by the value if there is no ratio because plain tonic did not
    /// finish.
    fn mark(&self) -> Mark {
        let is_root = self.variant == baseline::root(self.workload);
        match self.ratios {
            Some(ratios) => ratios.mark(self.metric),
            // A change of plain tonic itself comes from the machine.
            None if is_root => Mark::Same,
            None => self.values.mark(self.metric),
        }
    }

    fn text(&self) -> Text {
        let raw = units::change(self.values.ratio());
        let text = match self.ratios {
            Some(ratios) => Text::new(units::change(ratios.ratio())).small(raw),
            None => Text::new("").small(raw),
        };
        text.tone(match self.mark() {
            Mark::Better => Tone::Good,
            Mark::Worse => Tone::Bad,
            Mark::Same | Mark::Unknown => Tone::Plain,
        })
    }
}

fn grid(pairs: &[Pair<'_>]) -> Grid {
    let variants = distinct(pairs.iter().map(|pair| pair.variant));
    let head = ["workload", "metric"].into_iter();
    let mut grid = Grid::new(2, head.chain(variants.iter().copied()));
    let of_a_row = |a: &Pair<'_>, b: &Pair<'_>| a.workload == b.workload && a.metric == b.metric;
    let mut last = None;
    for pairs in pairs.chunk_by(of_a_row) {
        let name = match last.replace(pairs[0].workload) == Some(pairs[0].workload) {
            true => "",
            false => pairs[0].workload,
        };
        let mut row = vec![Text::new(name), Text::new(units::label(pairs[0].metric))];
        row.extend(variants.iter().map(|variant| {
            let pair = pairs.iter().find(|pair| pair.variant == *variant);
            pair.map_or_else(|| Text::new("–"), Pair::text)
        }));
        grid.rows.push(row);
    }
    grid
}

fn write_list(text: &mut String, pairs: &[Pair<'_>], mark: Mark, title: &str) -> fmt::Result {
    let marked: Vec<_> = pairs.iter().filter(|pair| pair.mark() == mark).collect();
    let end = if marked.is_empty() { " nothing" } else { "" };
    writeln!(text, "\n{title} by more than the spread:{end}")?;
    for pair in marked {
        let metric = units::label(pair.metric);
        writeln!(text, "  {}, {metric}, {}:", pair.workload, pair.variant)?;
        if let Some(Change { before, now }) = &pair.ratios {
            let before = units::ratio_with_spread(before);
            let now = units::ratio_with_spread(now);
            writeln!(text, "      ratio {before} → {now}")?;
        }
        let Change { before, now } = pair.values;
        let before = units::value(pair.metric, before.median);
        let now = units::value(pair.metric, now.median);
        writeln!(text, "      value {before} → {now}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row, run};

    fn rates(plain: Cell, forward: &[f64]) -> Run {
        let cells = vec![plain, cell("forward tunnel", forward)];
        run(vec![row("unary 16 B x 64", Metric::CallRate, cells)])
    }

    fn plain(rounds: &[f64]) -> Cell {
        cell("plain tonic", rounds)
    }

    fn mark(now: &Run, before: &Run, variant: &str) -> Mark {
        let pairs = pairs(now, before);
        let pair = pairs.iter().find(|pair| pair.variant == variant);
        pair.expect("both runs have it").mark()
    }

    #[test]
    fn a_machine_that_is_twice_as_fast_changes_nothing() {
        let before = rates(plain(&[1.0, 1.1, 1.2]), &[2.0, 2.2, 2.4]);
        let now = rates(plain(&[2.0, 2.2, 2.4]), &[4.0, 4.4, 4.8]);
        assert_eq!(mark(&now, &before, "forward tunnel"), Mark::Same);
        assert_eq!(mark(&now, &before, "plain tonic"), Mark::Same);
        let text = text(&now, &before);
        assert!(
            text.contains("Worse by more than the spread: nothing"),
            "{text}"
        );
        assert!(text.contains("±0 %") && text.contains("+100 %"), "{text}");
    }

    #[test]
    fn a_change_beyond_the_spread_is_marked() {
        let before = rates(plain(&[1.0; 3]), &[2.0, 2.1, 2.2]);
        let now = rates(plain(&[1.0; 3]), &[1.7, 1.8, 1.9]);
        assert_eq!(mark(&now, &before, "forward tunnel"), Mark::Worse);
        assert_eq!(mark(&before, &now, "forward tunnel"), Mark::Better);
        let text = text(&now, &before);
        assert!(
            text.contains("ratio 2.10 (2.00–2.20) → 1.80 (1.70–1.90)"),
            "{text}"
        );
    }

    #[test]
    fn a_change_within_the_spread_of_either_run_is_none() {
        let before = rates(plain(&[1.0; 3]), &[2.0, 2.1, 2.2]);
        let now = rates(plain(&[1.0; 3]), &[1.7, 1.8, 2.05]);
        assert_eq!(mark(&now, &before, "forward tunnel"), Mark::Same);
    }

    #[test]
    fn of_few_rounds_the_medians_must_be_further_apart_than_the_rounds() {
        let mark_of = |before: &[f64], now: &[f64]| {
            let plain = || plain(&vec![1.0; before.len()]);
            mark(
                &rates(plain(), now),
                &rates(plain(), before),
                "forward tunnel",
            )
        };
        assert_eq!(mark_of(&[2.0, 2.3, 2.4], &[1.7, 1.9, 1.95]), Mark::Same);
        let (before, now) = ([2.0, 2.2, 2.3, 2.3, 2.4], [1.7, 1.8, 1.9, 1.9, 1.95]);
        assert_eq!(mark_of(&before, &now), Mark::Worse);
    }

    #[test]
    fn without_a_baseline_the_values_are_compared() {
        let before = rates(hangs("plain tonic"), &[2.0, 2.1, 2.2]);
        let now = rates(hangs("plain tonic"), &[1.0, 1.1, 1.2]);
        assert_eq!(mark(&now, &before, "forward tunnel"), Mark::Worse);
    }

    #[test]
    fn with_too_few_rounds_no_change_is_marked() {
        let before = rates(plain(&[1.0]), &[2.0]);
        let now = rates(plain(&[1.0]), &[1.0]);
        assert_eq!(mark(&now, &before, "forward tunnel"), Mark::Unknown);
        assert!(text(&now, &before).contains("fewer than 3 rounds"));
    }

    #[test]
    fn a_comparison_says_that_the_machines_differ() {
        let before = rates(plain(&[1.0]), &[2.0]);
        let mut now = before.clone();
        now.machine.cores = 64;
        assert!(text(&now, &before).contains("The machines differ"));
    }
}
