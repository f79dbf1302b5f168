//! The benchmark table of the repository's README.
//!
//! Invariant: the table always shows a full run, and text outside the markers is not changed.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::grid::{Grid, Text};
use super::stats::{self, Summary};
use super::{baseline, facts, units};
use crate::results::{Metric, Row, Run, Settings};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// The minimum number of rounds of a full run.
const FEWEST_ROUNDS: u32 = 7;

/// The variants in the table.
const SHOWN: [&str; 2] = ["forward tunnel", "reverse tunnel"];

/// The rows of the table: label, workload and metric. The metric is the rate if it is `None`.
const MAIN: &[(&str, &str, Option<Metric>)] = &[
    ("calls of 16 B, 1 at a time", "unary 16 B x 1", None),
    ("… 16 at a time", "unary 16 B x 16", None),
    ("… 64", "unary 16 B x 64", None),
    ("… 1,024", "unary 16 B x 1024", None),
    (
        "CPU time of a call, 64 at a time *",
        "unary 16 B x 64",
        Some(Metric::CpuPerCall),
    ),
    (
        "p99 of a call, 64 at a time *",
        "unary 16 B x 64",
        Some(Metric::P99),
    ),
    (
        "p99 at 2,000 calls of 16 B a second *",
        "open loop 2000/s of 16 B, quiet",
        Some(Metric::P99),
    ),
    (
        "… at 10,000 *",
        "open loop 10000/s of 16 B, quiet",
        Some(Metric::P99),
    ),
    (
        "timeouts of 1,000 callers of a slow service",
        "brownout, 1000 callers, deadline 100 ms",
        None,
    ),
    ("calls of 64 KiB, 16 at a time", "unary 64 KiB x 16", None),
    ("one download of 1 KiB messages", "download 1 KiB x 1", None),
    ("one download of 1 MiB messages", "download 1 MiB x 1", None),
    ("… 8 downloads at once", "download 1 MiB x 8", None),
    ("one upload of 1 MiB messages", "upload 1 MiB x 1", None),
    ("… 8 uploads at once", "upload 1 MiB x 8", None),
    (
        "p99 of small calls beside a stream of 1 MiB *",
        "4 callers beside a 1 MiB stream",
        Some(Metric::P99),
    ),
    (
        "calls beside 64 streams that nobody reads",
        "unary 16 B x 16 beside 64 unread streams",
        None,
    ),
    ("opening 100,000 streams", "open 100000 idle streams", None),
    (
        "memory of an open stream, both ends *",
        "open 100000 idle streams",
        Some(Metric::MemoryPerStream),
    ),
    (
        "one download of 1 MiB, 50 ms each way †",
        "50 ms each way: download 1 MiB x 1",
        None,
    ),
];

/// Writes the table of a run between the markers of a README.
pub(crate) fn update(run: &Run, readme: &Path) -> Result<()> {
    check(&run.settings)?;
    check_complete(run)?;
    let name = readme.display();
    let text = fs::read_to_string(readme).with_context(|| format!("cannot read {name}"))?;
    let text = replace(&text, &fragment(run)).with_context(|| {
        format!("{name} has no place for the table: it needs a line {BEGIN} and, after it, {END}")
    })?;
    fs::write(readme, text).with_context(|| format!("cannot write {name}"))
}

/// Fails unless the settings are those of a full run. Call it before the run too, which takes long.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    ensure!(
        !settings.quick,
        "a README's table needs a full run, not a quick one"
    );
    ensure!(
        settings.only.is_none(),
        "a README's table needs a run of all workloads: leave --only out"
    );
    ensure!(
        settings.rounds >= FEWEST_ROUNDS,
        "a README's table needs {FEWEST_ROUNDS} rounds or more, not {}",
        settings.rounds
    );
    Ok(())
}

/// Fails unless the run has a value, or a note about a missing value, for every cell of the table.
fn check_complete(run: &Run) -> Result<()> {
    for (_, workload, metric) in MAIN {
        let row = row(run, workload, *metric);
        let variants = [baseline::root(workload)].into_iter().chain(SHOWN);
        for variant in variants {
            ensure!(
                row.is_some_and(|row| row.cell(variant).is_some()),
                "a README's table needs {variant} in \"{workload}\", which this run left out"
            );
        }
    }
    Ok(())
}

fn row<'a>(run: &'a Run, workload: &str, metric: Option<Metric>) -> Option<&'a Row> {
    match metric {
        Some(metric) => run.row(workload, metric),
        None => run.rate_row(workload),
    }
}

fn replace(text: &str, fragment: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{fragment}\n{END}{after}"))
}

fn fragment(run: &Run) -> String {
    let mut text = String::new();
    write(&mut text, run).expect("writing to a string never fails");
    text
}

fn write(text: &mut String, run: &Run) -> fmt::Result {
    let head = ["workload", baseline::PLAIN].into_iter();
    let mut grid = Grid::new(1, head.chain(SHOWN));
    for (label, workload, metric) in MAIN {
        grid.rows.push(cells(label, row(run, workload, *metric)));
    }
    writeln!(text, "{}", grid.markdown())?;
    writeln!(
        text,
        "Plain tonic's value on one connection, and the ratio of each tunnel to it: the median of {} \
         rounds (lowest–highest),\nformed within each round. More is better; \\* less is better; † \
         beside tonic with windows of 16 MiB, which tunnels need no setting for.\nClient and server \
         are two processes on {}; {}, {}, {}.",
        run.settings.rounds,
        facts::cpu(run),
        run.machine.os,
        run.machine.rustc,
        facts::date(run)
    )
}

fn cells(label: &str, row: Option<&Row>) -> Vec<Text> {
    let mut cells = vec![Text::new(label.replace('*', "\\*"))];
    let Some(row) = row else {
        let nothing = std::iter::repeat_n(Text::new("not measured"), 1 + SHOWN.len());
        cells.extend(nothing);
        return cells;
    };
    let root = baseline::root(&row.workload);
    cells.push(value(row, root));
    cells.extend(SHOWN.map(|variant| match ratio(row, variant, root) {
        Some(ratio) => {
            let main = format!("**{}**", units::ratio(ratio.median));
            Text::new(main).small(units::ratio_spread(&ratio))
        }
        None => value(row, variant),
    }));
    cells
}

fn ratio(row: &Row, variant: &str, root: &str) -> Option<Summary> {
    stats::ratio(row.cell(variant)?, row.cell(root)?)
}

fn value(row: &Row, variant: &str) -> Text {
    let cell = row.cell(variant);
    match (
        cell.and_then(stats::value),
        cell.and_then(|cell| cell.note.as_ref()),
    ) {
        (Some(value), _) => Text::new(units::value(row.metric, value.median)),
        (None, Some(note)) => Text::new(note),
        (None, None) => Text::new("not measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row, run};

    /// A full run, reduced to two workloads.
    fn full() -> Run {
        let cells = |plain| {
            let forward = cell("forward tunnel", &[2000.0, 2100.0, 2200.0]);
            vec![plain, forward, cell("reverse tunnel", &[2500.0; 3])]
        };
        let plain = cell("plain tonic", &[1000.0; 3]);
        let unread = "unary 16 B x 16 beside 64 unread streams";
        run(vec![
            row("unary 16 B x 1", Metric::CallRate, cells(plain)),
            row(unread, Metric::CallRate, cells(hangs("plain tonic"))),
        ])
    }

    #[test]
    fn the_table_has_a_value_two_ratios_and_where_they_are_from() {
        let text = fragment(&full());
        for expected in [
            "| calls of 16 B, 1 at a time | 1.00 k/s | **2.10** (2.00–2.20) | **2.50** (2.50–2.50) |\n",
            "| calls beside 64 streams that nobody reads | hangs | 2.10 k/s | 2.50 k/s |\n",
            "Example CPU @ 2.00GHz, 2 cores; Linux 6.1, rustc 1.95.0, 2026-01-02.",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn only_text_between_the_markers_changes_and_writing_is_idempotent() {
        let text = format!("before\n\n{BEGIN}\nold\n{END}\n\nafter\n");
        let once = replace(&text, "new\n").expect("there are markers");
        assert_eq!(
            once,
            format!("before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n")
        );
        assert_eq!(replace(&once, "new\n"), Some(once));
        assert_eq!(replace("no markers", "new\n"), None);
        assert_eq!(replace(&format!("{END} {BEGIN}"), "new\n"), None);
    }

    #[test]
    fn a_partial_run_is_refused_before_anything_is_written() {
        let refused = |change: fn(&mut Run)| {
            let mut run = full();
            change(&mut run);
            update(&run, Path::new("no such file")).expect_err("it is no full run")
        };
        let quick = refused(|run| run.settings.quick = true);
        assert!(quick.to_string().contains("not a quick one"));
        let only = refused(|run| run.settings.only = Some("unary".to_owned()));
        assert!(only.to_string().contains("leave --only out"));
        let short = refused(|run| run.settings.rounds = 3);
        assert!(short.to_string().contains("7 rounds or more, not 3"));
    }

    #[test]
    fn a_run_that_lacks_what_the_table_shows_is_refused() {
        let error = update(&full(), Path::new("no such file")).expect_err("it lacks most");
        let text = error.to_string();
        assert!(
            text.contains("plain tonic in \"unary 16 B x 16\""),
            "{text}"
        );
    }

    /// A run with every cell of the table.
    fn complete() -> Run {
        let variants = [
            "plain tonic",
            "tuned tonic",
            "forward tunnel",
            "reverse tunnel",
        ];
        let rows = MAIN.iter().map(|(_, workload, metric)| {
            let cells = variants.map(|variant| cell(variant, &[1.0; 7]));
            row(workload, metric.unwrap_or(Metric::CallRate), cells.to_vec())
        });
        run(rows.collect())
    }

    #[test]
    fn a_readme_gets_the_table_of_a_full_run() {
        let dir = tempfile::tempdir().expect("there is room for a file");
        let readme = dir.path().join("README.md");
        fs::write(&readme, format!("{BEGIN}\n{END}\n")).expect("it can be written");
        update(&complete(), &readme).expect("it is a full run");
        let text = fs::read_to_string(&readme).expect("it is there");
        assert!(
            text.contains("| … 64 | 1.00 /s | **1.00** (1.00–1.00) |"),
            "{text}"
        );
        assert!(!text.contains("not measured"), "{text}");
    }

    #[test]
    fn the_error_for_a_readme_without_markers_names_them() {
        let dir = tempfile::tempdir().expect("there is room for a file");
        let readme = dir.path().join("README.md");
        fs::write(&readme, "# Title\n").expect("it can be written");
        let error = update(&complete(), &readme).expect_err("it has no markers");
        assert!(error.to_string().contains(BEGIN), "{error:#}");
        assert_eq!(
            fs::read_to_string(&readme).expect("it is there"),
            "# Title\n"
        );
    }
}
