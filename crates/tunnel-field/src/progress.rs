//! The progress display: a live line for each running row, on a terminal only.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The interval at which the live lines are redrawn.
const TICK: Duration = Duration::from_millis(200);

/// The live lines. Hidden without a terminal.
#[derive(Default)]
pub(crate) struct Progress(MultiProgress);

impl Progress {
    /// Adds a live line.
    pub(crate) fn line(&self, name: &str) -> Line {
        let bar = self.0.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})");
        // The template is a constant; an error in it would show at once.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(TICK);
        Line(bar)
    }

    /// Prints a permanent line.
    pub(crate) fn say(&self, text: &str) {
        self.0.suspend(|| println!("{text}"));
    }
}

/// A live line. Clones refer to the same line.
#[derive(Clone)]
pub(crate) struct Line(ProgressBar);

impl Line {
    /// Shows the current activity.
    pub(crate) fn at(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    /// Removes the line.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
