//! The report of a run, as text, Markdown and JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

use crate::matrix::{WAYS, describe_way};
use crate::outcome::{Counts, Outcome, PairOutcome};
use crate::versions::{self, Versions};

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

impl Report {
    /// Writes the report in every format.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        let files = [
            ("report.md", self.full()),
            ("summary.md", self.short()),
            ("report.json", json + "\n"),
        ];
        for (name, content) in files {
            let path = out.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// A table with the counts of each pair, in Markdown.
    pub(crate) fn summary(&self) -> Table {
        let mut rows: Vec<(String, BTreeMap<_, _>)> = Vec::new();
        for outcome in &self.pairs {
            let pair = outcome.pair;
            let ends = format!("{} → {}", pair.caller, pair.handler);
            if rows.last().is_none_or(|(last, _)| *last != ends) {
                rows.push((ends, BTreeMap::new()));
            }
            if let Some((_, row)) = rows.last_mut() {
                row.insert((pair.direction, pair.revision), cell(outcome));
            }
        }
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        let head = ["caller → handler".to_owned()].into_iter();
        table.set_header(head.chain(WAYS.map(describe_way)));
        for (ends, row) in rows {
            let cells = WAYS.map(|way| row.get(&way).cloned().unwrap_or_default());
            table.add_row([ends].into_iter().chain(cells));
        }
        table
    }

    /// The legend of the summary.
    pub(crate) fn legend(&self) -> String {
        let unexpected = match self.totals.unexpected {
            0 => "",
            _ => " ! unexpected",
        };
        format!(
            "Cases: passed + failed as expected, because of an error of the other \
             implementation{unexpected}."
        )
    }

    /// The reasons why the run fails, one line each, with the pair.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let of = |outcome: &PairOutcome| {
            let (complaints, pair) = (outcome.complaints(), outcome.pair);
            complaints
                .into_iter()
                .map(move |line| format!("{pair}: {line}"))
        };
        self.pairs.iter().flat_map(of).collect()
    }

    /// The summary and the versions.
    fn short(&self) -> String {
        let versions = versions::describe(&self.versions);
        let versions: String = versions.iter().map(|line| format!("- {line}\n")).collect();
        format!("{}\n\n{}\n\n{versions}", self.summary(), self.legend())
    }

    /// The summary, the unexpected outcomes, and the expected failures by their reasons.
    fn full(&self) -> String {
        let mut text = "# Interoperability\n\n".to_owned();
        if let Some(what) = &self.limited_to {
            text += &format!("Limited to {what}.\n\n");
        }
        text += &self.short();
        let complaints = self.complaints();
        if !complaints.is_empty() {
            text += "\n## Unexpected\n\n";
            text.extend(complaints.iter().map(|line| format!("- {line}\n")));
        }
        text += "\n## Expected failures\n";
        for (reason, cases) in self.by_reason() {
            text += &format!("\n{reason}\n\n");
            text.extend(cases.iter().map(|case| format!("- {case}\n")));
        }
        text
    }

    /// The expected failures by their reasons. The cases of a pair are on one line.
    fn by_reason(&self) -> BTreeMap<&str, Vec<String>> {
        let mut reasons: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for outcome in &self.pairs {
            let mut of_pair: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for case in &outcome.cases {
                if let Outcome::ExpectedFailure { reason, .. } = &case.outcome {
                    of_pair.entry(reason).or_default().push(&case.case);
                }
            }
            for (reason, cases) in of_pair {
                let line = format!("{}: {}", outcome.pair, cases.join(", "));
                reasons.entry(reason).or_default().push(line);
            }
        }
        reasons
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
    use crate::matrix::pairs;
    use crate::outcome::{CaseOutcome, Counts, Outcome, PairOutcome};

    /// A report of all pairs. One case passed, one failed as expected, and in the first pair one
    /// failed unexpectedly.
    pub(crate) fn report() -> Report {
        let case = |case: &str, outcome| CaseOutcome {
            case: case.to_owned(),
            seconds: 0.5,
            outcome,
        };
        let expected = || Outcome::ExpectedFailure {
            sentence: "no answer".to_owned(),
            reason: "It forgets.".to_owned(),
        };
        let pairs = pairs().into_iter().map(|pair| PairOutcome {
            pair,
            seconds: 1.0,
            cases: vec![case("unary", Outcome::Passed), case("echo", expected())],
        });
        let mut report = Report {
            limited_to: None,
            seconds: 2.0,
            totals: Counts::default(),
            versions: Vec::new(),
            pairs: pairs.collect(),
        };
        report.pairs[0].cases[0].outcome = Outcome::Failed {
            sentence: "no".to_owned(),
        };
        report
    }

    #[test]
    fn the_summary_has_a_row_for_two_ends_and_a_column_for_each_way() {
        let text = report().summary().to_string();
        let mut lines = text.lines();
        let head = lines.next().expect("a head");
        assert!(head.contains("| reverse, revision zero"), "{head}");
        let first = lines.nth(1).expect("a row");
        assert!(first.starts_with("| Rust → Rust"), "{first}");
        assert!(first.contains("0 + 1 ! 1"), "{first}");
        assert_eq!(lines.count(), 8);
    }

    #[test]
    fn the_full_report_has_unexpected_outcomes_and_the_reasons_of_expected_ones() {
        let text = report().full();
        let complaint = "- Rust → Rust, forward, revision one: unary: FAILED: no\n";
        assert!(text.contains(complaint), "{text}");
        let reason = "\nIt forgets.\n\n- Rust → Rust, forward, revision one: echo\n";
        assert!(text.contains(reason), "{text}");
    }

    #[test]
    fn json_has_the_outcome_of_each_case() {
        let json = serde_json::to_value(report()).expect("it can be written");
        let pair = &json["pairs"][0];
        assert_eq!(
            (&pair["caller"], &pair["revision"]),
            (&"rust".into(), &"one".into())
        );
        assert_eq!(pair["cases"][0]["outcome"], "failed");
        assert_eq!(pair["cases"][1]["outcome"], "expected-failure");
    }
}
