//! The progress display: a bar on a terminal, lines otherwise.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar at the bottom, and notes above it.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A display for this number of measurements.
    pub(super) fn new(measurements: usize) -> Self {
        let bar = ProgressBar::new(measurements as u64);
        let style = "[{elapsed_precise}] {bar:30} {pos}/{len} (about {eta} left) {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("##-"));
        }
        Self { bar }
    }

    /// Shows the current measurement.
    pub(super) fn at(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Counts measurements that are finished or skipped.
    pub(super) fn done(&self, measurements: usize) {
        self.bar.inc(measurements as u64);
    }

    /// Prints the start of a part, if there is no bar.
    pub(super) fn part(&self, what: &str) {
        if self.bar.is_hidden() {
            eprintln!(
                "[{} of {}] {what}",
                self.bar.position(),
                self.bar.length().unwrap_or(0)
            );
        }
    }

    /// Prints a note.
    pub(super) fn note(&self, what: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{what}"),
            false => self.bar.println(what),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
