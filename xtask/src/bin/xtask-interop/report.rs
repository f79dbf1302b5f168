//! The report of a run, as text, Markdown and JSON.

mod markdown;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::matrix::{Direction, Peer, Revision, WAYS};
use crate::outcome::{Counts, PairOutcome};
use crate::table::Table;
use crate::versions::Versions;

/// The results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The limit of the run; `None` if it was complete.
    pub(crate) limited_to: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) totals: Counts,
    pub(crate) versions: Vec<Versions>,
    pub(crate) pairs: Vec<PairOutcome>,
}

/// The outcomes of two ends, by direction and revision.
pub(crate) type Row<'a> = BTreeMap<(Direction, Revision), &'a PairOutcome>;

impl Report {
    /// Writes the report in every format.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        let files = [
            ("report.md", markdown::full(self)),
            ("summary.md", markdown::summary(self)),
            ("report.json", json + "\n"),
        ];
        for (name, content) in files {
            let path = out.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// A table with the counts of each pair.
    pub(crate) fn summary(&self) -> Table {
        let ways = WAYS.iter();
        let ways = ways
            .map(|(direction, revision)| format!("{}, revision {}", direction.id(), revision.id()));
        let mut table = Table::new(["caller → handler".to_owned()].into_iter().chain(ways));
        for (ends, row) in self.rows() {
            let cells = WAYS.map(|way| row.get(&way).map_or_else(String::new, |pair| cell(pair)));
            let (caller, handler) = ends;
            table.push([format!("{caller} → {handler}")].into_iter().chain(cells));
        }
        table
    }

    /// The legend of the summary.
    pub(crate) fn legend(&self) -> String {
        let unexpected = if self.totals.unexpected > 0 {
            " ! unexpected"
        } else {
            ""
        };
        format!(
            "Cases: passed + failed as expected, because of what the other implementation \
             does{unexpected}."
        )
    }

    /// The reasons why the run fails, one line each, with the pair.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let of = |pair: &PairOutcome| {
            let (complaints, pair) = (pair.complaints(), pair.pair);
            complaints
                .into_iter()
                .map(move |line| format!("{pair}: {line}"))
        };
        self.pairs.iter().flat_map(of).collect()
    }

    /// The outcomes of two ends side by side, in the order in which they ran.
    pub(crate) fn rows(&self) -> Vec<((Peer, Peer), Row<'_>)> {
        let mut rows: Vec<((Peer, Peer), Row<'_>)> = Vec::new();
        for outcome in &self.pairs {
            let pair = &outcome.pair;
            let (ends, way) = ((pair.caller, pair.handler), (pair.direction, pair.revision));
            match rows.iter_mut().find(|(known, _)| *known == ends) {
                Some((_, row)) => {
                    row.insert(way, outcome);
                }
                None => rows.push((ends, [(way, outcome)].into())),
            }
        }
        rows
    }
}

/// The cell of a pair: `passed + expected failures ! unexpected`, the last two only if not zero.
fn cell(pair: &PairOutcome) -> String {
    let counts = pair.counts();
    let mut cell = counts.passed.to_string();
    if counts.expected_failures > 0 {
        cell += &format!(" + {}", counts.expected_failures);
    }
    if counts.unexpected > 0 {
        cell += &format!(" ! {}", counts.unexpected);
    }
    cell
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Report;
    use crate::matrix::{Direction, pairs};
    use crate::outcome::{CaseOutcome, Counts, Outcome, PairOutcome};

    /// A report of all pairs. One case passed, one failed as expected, and in the first pair one
    /// failed unexpectedly.
    pub(crate) fn report() -> Report {
        let case = |case: &str, outcome| CaseOutcome {
            case: case.to_owned(),
            outcome,
        };
        let pairs: Vec<_> = pairs()
            .into_iter()
            .map(|pair| PairOutcome {
                pair,
                seconds: 1.0,
                trouble: None,
                cases: vec![
                    case("unary", Outcome::Passed),
                    case(
                        "echo",
                        Outcome::ExpectedFailure {
                            sentence: "no | answer".to_owned(),
                            reason: format!("It goes {} only.", Direction::Forward.id()),
                        },
                    ),
                ],
            })
            .collect();
        let mut report = Report {
            limited_to: None,
            seconds: 2.0,
            totals: Counts::default(),
            versions: Vec::new(),
            pairs,
        };
        report.pairs[0].cases[0].outcome = Outcome::Failed {
            sentence: "no".to_owned(),
        };
        report
    }

    #[test]
    fn the_summary_has_a_row_for_two_ends_and_a_column_for_each_way() {
        let text = report().summary().text();
        let mut lines = text.lines();
        let head = lines.next().expect("a head");
        assert!(head.starts_with("caller → handler  "), "{head}");
        assert!(
            head.ends_with("  reverse, revision one  reverse, revision zero"),
            "{head}"
        );
        let first = lines.next().expect("a row");
        assert!(first.starts_with("Rust → Rust"), "{first}");
        assert!(first.contains("0 + 1 ! 1"), "{first}");
        assert_eq!(lines.count(), 13);
    }

    #[test]
    fn complaints_name_pair_and_case() {
        let expected = "Rust → Rust, forward, revision one: unary: FAILED: no";
        assert_eq!(report().complaints(), [expected]);
    }

    #[test]
    fn json_says_of_each_case_what_it_came_to() {
        let json = serde_json::to_value(report()).expect("it can be written");
        let pair = &json["pairs"][0];
        assert_eq!(pair["caller"], "rust");
        assert_eq!(pair["revision"], "one");
        assert_eq!(pair["cases"][0]["outcome"], "failed");
        assert_eq!(pair["cases"][0]["sentence"], "no");
        assert_eq!(pair["cases"][1]["outcome"], "expected-failure");
    }
}
