//! The progress display: a bar over the rows and what the present one does, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The interval at which the bar is redrawn.
const TICK: Duration = Duration::from_millis(200);

/// The bar. Hidden without a terminal. Clones are the same bar.
#[derive(Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn of(rows: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(rows).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template(
            "{spinner} [{bar:20}] {pos}/{len} {prefix}: {msg} ({elapsed})",
        );
        // The template is a constant; an error in it would show at once.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Begins a row.
    pub(crate) fn row(&self, name: &str) {
        self.0.set_prefix(name.to_owned());
        self.at("begins");
    }

    /// Shows the current activity.
    pub(crate) fn at(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    /// Ends a row, with a permanent line.
    pub(crate) fn done(&self, text: &str) {
        self.0.inc(1);
        self.0.suspend(|| println!("{text}"));
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
