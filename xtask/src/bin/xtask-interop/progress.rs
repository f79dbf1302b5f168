//! What is seen while the matrix runs: a line for each pair, the last one live.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::matrix::Pair;
use crate::outcome::PairOutcome;

/// How often the live line is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// The lines. There is no live one where nobody could see it.
pub(crate) struct Progress {
    bar: ProgressBar,
    pairs: usize,
    ended: usize,
}

impl Progress {
    /// Shows how far so many pairs have come.
    pub(crate) fn of(pairs: usize) -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {prefix} {msg} ({elapsed})");
        // The template is a constant: that it is right is seen at once.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            pairs,
            ended: 0,
        }
    }

    /// A pair begins.
    pub(crate) fn begin(&self, pair: &Pair, cases: usize) {
        let number = self.ended + 1;
        self.bar
            .set_prefix(format!("[{number}/{}] {pair}", self.pairs));
        self.bar.reset_elapsed();
        self.heard(0, cases);
    }

    /// So many cases of the pair have ended.
    pub(crate) fn heard(&self, ended: usize, cases: usize) {
        self.bar.set_message(format!("{ended} of {cases} cases"));
    }

    /// A pair has ended: its line stays.
    pub(crate) fn end(&mut self, outcome: &PairOutcome) {
        self.ended += 1;
        self.bar.suspend(|| println!("{}", line(outcome)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(outcome: &PairOutcome) -> String {
    let counts = outcome.counts();
    let mark = if counts.unexpected == 0 { '✓' } else { '✗' };
    let pair = outcome.pair.to_string();
    let (seconds, counts) = (outcome.seconds, counts.describe());
    format!("{mark} {pair:<48}{seconds:6.1} s  {counts}")
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::report::tests::report;

    #[test]
    fn a_line_tells_pair_time_and_counts() {
        let report = report();
        let bad = line(&report.pairs[0]);
        assert!(
            bad.starts_with("✗ Rust → Rust, forward, revision one  "),
            "{bad}"
        );
        assert!(
            bad.ends_with("  1.0 s  0 passed, 1 failed as expected, 1 UNEXPECTED"),
            "{bad}"
        );
        let good = line(&report.pairs[1]);
        assert!(good.starts_with('✓'), "{good}");
    }
}
