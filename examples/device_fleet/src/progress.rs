//! How far the show is, where somebody watches.

use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

/// A line that moves, on a terminal only. Clones are the same line.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    line: ProgressBar,
}

impl Progress {
    /// So many devices are expected.
    pub(crate) fn of_devices(count: usize) -> Self {
        let line = ProgressBar::new(count.try_into().unwrap_or(u64::MAX));
        Self::styled(line, "{bar:40} {pos} of {len} devices are there")
    }

    /// Calls are made, nobody knows how many.
    pub(crate) fn of_calls() -> Self {
        Self::styled(
            ProgressBar::no_length(),
            "{spinner} {pos} calls, {per_sec} ({elapsed})",
        )
    }

    fn styled(line: ProgressBar, template: &str) -> Self {
        // A template that is not understood costs the looks of the line alone.
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            line: line.with_style(style),
        }
    }

    pub(crate) fn step(&self) {
        self.line.inc(1);
    }

    pub(crate) fn reach(&self, position: usize) {
        self.line
            .set_position(position.try_into().unwrap_or(u64::MAX));
    }

    /// Logs a line, which does not get in the way of the moving one.
    pub(crate) fn say(&self, line: &str) {
        self.line.suspend(|| info!("{line}"));
    }

    /// Removes the line from the terminal.
    pub(crate) fn end(&self) {
        self.line.finish_and_clear();
    }
}
