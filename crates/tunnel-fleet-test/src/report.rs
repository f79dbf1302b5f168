//! The table.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::rows::Outcome;

/// A line of the table.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) seconds: f64,
    pub(crate) result: anyhow::Result<Outcome>,
}

impl Line {
    pub(crate) fn has_failed(&self) -> bool {
        match &self.result {
            Ok(Outcome::Judged { judgement, .. }) => !judgement.problems.is_empty(),
            Ok(Outcome::Skipped(_)) => false,
            Err(_) => true,
        }
    }

    /// One line, for when the row has ended.
    pub(crate) fn text(&self) -> String {
        let mark = match (&self.result, self.has_failed()) {
            (Ok(Outcome::Skipped(_)), _) => '!',
            (_, false) => '✓',
            (_, true) => '✗',
        };
        let [calls, failed, longest, verdict] = self.cells();
        let seconds = self.seconds;
        match calls.is_empty() {
            true => format!("{mark} {}: {verdict} ({seconds:.0} s)", self.name),
            false => format!(
                "{mark} {}: {failed} of {calls} calls failed, next call after {longest}: {verdict} ({seconds:.0} s)",
                self.name
            ),
        }
    }

    /// Calls, failed calls, the longest time until a key's next call, verdict.
    fn cells(&self) -> [String; 4] {
        match &self.result {
            Err(error) => [
                String::new(),
                String::new(),
                String::new(),
                format!("FAILED: {error:#}"),
            ],
            Ok(Outcome::Skipped(why)) => [
                String::new(),
                String::new(),
                String::new(),
                format!("SKIPPED: {why}"),
            ],
            Ok(Outcome::Judged { judgement, words }) => {
                let verdict = match (&judgement.problems[..], words.is_empty()) {
                    ([], true) => "ok".to_owned(),
                    ([], false) => format!("ok: {words}"),
                    (problems, true) => format!("FAILED: {}", problems.join("; ")),
                    (problems, false) => format!("FAILED: {} ({words})", problems.join("; ")),
                };
                [
                    judgement.calls.to_string(),
                    judgement.failed.to_string(),
                    format!("{} ms", judgement.longest.as_millis()),
                    verdict,
                ]
            }
        }
    }
}

/// All lines.
pub(crate) fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["fault", "calls", "failed", "next call of a key", "verdict"]);
    for line in lines {
        let [calls, failed, longest, verdict] = line.cells();
        table.add_row([line.name.to_owned(), calls, failed, longest, verdict]);
    }
    table
}
