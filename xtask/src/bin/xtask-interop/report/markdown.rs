//! The report in Markdown: the full report, and a summary that fits into a README.

use std::collections::BTreeMap;

use crate::matrix::{Peer, WAYS};
use crate::outcome::{CaseOutcome, Outcome, PairOutcome};
use crate::report::Report;
use crate::table::{Table, escape};
use crate::versions;

/// The full report: the summary, the unexpected outcomes, every case of every pair, and the reasons
/// for expected failures.
pub(crate) fn full(report: &Report) -> String {
    let reasons = Reasons::of(report);
    let parts = [
        "# Interoperability\n".to_owned(),
        limits(report),
        summary(report),
        unexpected(report),
        tables(report, &reasons),
        reasons.list(),
    ];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The table of pairs and the versions of the peers.
pub(crate) fn summary(report: &Report) -> String {
    let versions = versions::describe(&report.versions);
    let versions: String = versions.iter().map(|line| format!("- {line}\n")).collect();
    format!(
        "{}\n{}\n\n{versions}",
        report.summary().markdown(),
        report.legend()
    )
}

fn limits(report: &Report) -> String {
    let limited_to = report.limited_to.as_ref();
    limited_to.map_or_else(String::new, |what| format!("Limited to {what}.\n"))
}

fn unexpected(report: &Report) -> String {
    let complaints = report.complaints();
    if complaints.is_empty() {
        return String::new();
    }
    let lines: String = complaints
        .iter()
        .map(|line| format!("- {}\n", escape(line)))
        .collect();
    format!("## Unexpected\n\n{lines}")
}

/// A table for each direction and revision, with a row for each case.
fn tables(report: &Report, reasons: &Reasons) -> String {
    let rows = report.rows();
    let mut sections = Vec::new();
    for (direction, revision) in WAYS {
        let met: Vec<_> = rows
            .iter()
            .filter_map(|(ends, row)| Some((*ends, *row.get(&(direction, revision))?)))
            .collect();
        let (direction, revision) = (direction.id(), revision.id());
        let title = format!("## {direction} tunnels, revision {revision}\n");
        sections.push(format!("{title}\n{}", table(&met, reasons).markdown()));
    }
    sections.join("\n")
}

fn table(met: &[((Peer, Peer), &PairOutcome)], reasons: &Reasons) -> Table {
    let ends = met.iter();
    let ends = ends.map(|((caller, handler), _)| format!("{caller} → {handler}"));
    let mut table = Table::new(["case".to_owned()].into_iter().chain(ends));
    for name in cases(met) {
        let marks = met.iter().map(|(_, pair)| {
            let case = pair.cases.iter().find(|case| case.case == name);
            case.map_or_else(String::new, |case| reasons.mark(case))
        });
        table.push([name.to_owned()].into_iter().chain(marks));
    }
    table
}

/// The distinct cases of some pairs, in order of first appearance.
fn cases<'a>(met: &[((Peer, Peer), &'a PairOutcome)]) -> Vec<&'a str> {
    let mut cases = Vec::new();
    for case in met.iter().flat_map(|(_, pair)| &pair.cases) {
        if !cases.contains(&case.case.as_str()) {
            cases.push(case.case.as_str());
        }
    }
    cases
}

/// The reasons for expected failures, numbered in order of appearance.
struct Reasons<'a> {
    numbers: BTreeMap<&'a str, usize>,
}

impl<'a> Reasons<'a> {
    fn of(report: &'a Report) -> Self {
        let mut numbers = BTreeMap::new();
        for case in report.pairs.iter().flat_map(|pair| &pair.cases) {
            if let Outcome::ExpectedFailure { reason, .. } = &case.outcome {
                let next = numbers.len() + 1;
                numbers.entry(reason.as_str()).or_insert(next);
            }
        }
        Self { numbers }
    }

    /// The table cell of a case.
    fn mark(&self, case: &CaseOutcome) -> String {
        match &case.outcome {
            Outcome::Passed => "✓".to_owned(),
            Outcome::ExpectedFailure { reason, .. } => {
                let number = self.numbers.get(reason.as_str());
                number.map_or_else(String::new, |number| format!("({number})"))
            }
            Outcome::Failed { .. } | Outcome::FailedOtherwise { .. } => "FAILED".to_owned(),
            Outcome::SurprisePass { .. } => "surprise".to_owned(),
        }
    }

    fn list(&self) -> String {
        let mut reasons: Vec<_> = self.numbers.iter().collect();
        reasons.sort_by_key(|(_, number)| **number);
        if reasons.is_empty() {
            return String::new();
        }
        let line = |(reason, number): (&&str, &usize)| format!("{number}. {}\n", escape(reason));
        let lines: String = reasons.into_iter().map(line).collect();
        format!("## Expected failures\n\n{lines}")
    }
}

#[cfg(test)]
mod tests {
    use super::{full, summary};
    use crate::report::tests::report;

    #[test]
    fn every_case_has_a_mark_and_every_number_a_reason() {
        let text = full(&report());
        let cells = " ✓ |".repeat(9);
        assert!(
            text.contains(&format!("| unary | FAILED |{cells}")),
            "{text}"
        );
        assert!(text.contains("| echo | (1) | (1) |"), "{text}");
        assert!(text.ends_with("1. It goes forward only.\n"), "{text}");
        assert_eq!(text.matches("tunnels, revision").count(), 4);
    }

    #[test]
    fn what_is_unexpected_is_told_before_the_tables() {
        let text = full(&report());
        let unexpected = text.find("## Unexpected").expect("there is something");
        assert!(unexpected < text.find("## forward").expect("a table"));
    }

    #[test]
    fn the_summary_is_short() {
        let text = summary(&report());
        assert!(
            text.starts_with("| caller → handler | forward, revision one |"),
            "{text}"
        );
        assert!(text.lines().count() < 20);
    }
}
