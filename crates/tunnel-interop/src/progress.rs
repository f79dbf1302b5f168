//! The progress display: one line for each pair, of which the last is live.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::matrix::Pair;
use crate::outcome::PairOutcome;

/// The interval at which the live line is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// The progress lines. The live line appears on a terminal only.
pub(crate) struct Progress {
    bar: ProgressBar,
    pairs: usize,
    ended: usize,
}

impl Progress {
    /// A display for this number of pairs.
    pub(crate) fn of(pairs: usize) -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {prefix} {msg} ({elapsed})");
        // The template is a constant; an error in it would show at once.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            pairs,
            ended: 0,
        }
    }

    /// Starts the line of a pair.
    pub(crate) fn begin(&self, pair: &Pair, cases: usize) {
        let number = self.ended + 1;
        self.bar
            .set_prefix(format!("[{number}/{}] {pair}", self.pairs));
        self.bar.reset_elapsed();
        self.show(0, cases);
    }

    /// Shows how many cases of the pair have ended.
    pub(crate) fn show(&self, ended: usize, cases: usize) {
        self.bar.set_message(format!("{ended} of {cases} cases"));
    }

    /// Prints the permanent line of a pair that has ended.
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
