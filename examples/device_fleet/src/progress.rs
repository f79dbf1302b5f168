//! The progress line on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

/// A progress line, shown on a terminal only. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    line: ProgressBar,
}

impl Progress {
    /// Shows the devices that are there, of those expected.
    pub(crate) fn of_devices(count: usize) -> Self {
        let line = ProgressBar::new(count.try_into().unwrap_or(u64::MAX));
        Self::styled(line, "{bar:40} {pos} of {len} devices are there")
    }

    /// Shows the number and rate of calls.
    pub(crate) fn of_calls() -> Self {
        Self::styled(
            ProgressBar::no_length(),
            "{spinner} {pos} calls, {per_sec} ({elapsed})",
        )
    }

    fn styled(line: ProgressBar, template: &str) -> Self {
        // An invalid template only affects the look of the line.
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

    /// Logs a line above the progress line.
    pub(crate) fn say(&self, line: &str) {
        self.line.suspend(|| info!("{line}"));
    }

    /// Removes the line from the terminal.
    pub(crate) fn end(&self) {
        self.line.finish_and_clear();
    }
}
