//! What is seen while rows run: a live line for each, where somebody watches.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often the live lines are drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// The live lines. There are none where nobody could see them.
#[derive(Default)]
pub(crate) struct Progress(MultiProgress);

impl Progress {
    /// Adds a line.
    pub(crate) fn line(&self, name: &str) -> Line {
        let bar = self.0.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})");
        // The template is a constant: that it is right is seen at once.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(TICK);
        Line(bar)
    }

    /// Prints a line that stays.
    pub(crate) fn say(&self, text: &str) {
        self.0.suspend(|| println!("{text}"));
    }
}

/// One live line; clones are the same.
#[derive(Clone)]
pub(crate) struct Line(ProgressBar);

impl Line {
    /// Says what goes on.
    pub(crate) fn at(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    /// Removes it.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
