//! Reports of a run: tables on the terminal, files, and comparisons.
//!
//! [`view`] arranges a run for all reports. All statistics are in [`stats`].

mod against;
pub(crate) mod baseline;
mod facts;
mod grid;
mod html;
mod json;
mod markdown;
pub(crate) mod readme;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod stats;
mod table;
pub(crate) mod units;
mod verdicts;
pub(crate) mod view;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::results::Run;

/// Writes a run in every format and returns the paths.
///
/// `report.*` is always the last run. A copy of the JSON, named after the start of the run, stays
/// for comparison with later runs.
pub(crate) fn write_all(run: &Run, dir: &Path) -> Result<Vec<PathBuf>> {
    let json = json::text(run)?;
    let kept = format!("runs/{}.json", file_name(&run.began));
    let files = [
        (dir.join("report.html"), html::page(run)),
        (dir.join("report.md"), markdown::text(run)),
        (dir.join("report.json"), json.clone()),
        (dir.join(kept), json),
    ];
    let mut written = Vec::new();
    for (path, text) in files {
        write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text)
}

/// A time as a file name that is valid on every file system, to the second.
fn file_name(time: &str) -> String {
    const TO_THE_SECOND: usize = 19;
    time.replace(':', "-").chars().take(TO_THE_SECOND).collect()
}

/// Prints the tables and the verdicts on the targets.
pub(crate) fn print(run: &Run) {
    for section in view::sections(run) {
        for panel in &section.panels {
            let (title, grid) = table::of_panel(&section, panel);
            println!("{title}\n{}", grid.terminal());
        }
    }
    println!("{}\n", facts::LEGEND);
    let verdicts = verdicts::of_measured(run);
    println!("targets: {}", verdicts.counts);
    for grid in verdicts.grids {
        println!("{}", grid.terminal());
    }
}

/// Compares a run with the one in a file.
pub(crate) fn against(run: &Run, file: &Path) -> Result<String> {
    let earlier = json::read(file)?;
    ensure!(
        earlier != *run,
        "{} is this very run, which has just been written there: \
         name one of those that are kept under `runs`",
        file.display()
    );
    Ok(against::text(run, &earlier))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sample::{cell, row, run};

    #[test]
    fn a_run_that_was_written_can_be_compared_with() {
        let dir = tempfile::tempdir().expect("there is room for files");
        let cells = vec![cell("plain tonic", &[1.0; 3])];
        let mut run = run(vec![row("unary", crate::results::Metric::CallRate, cells)]);
        let files = write_all(&run, dir.path()).expect("they can be written");
        let kept = files.last().expect("there are files");
        assert!(kept.ends_with("runs/2026-01-02T03-04-05.json"));
        let error = against(&run, kept).expect_err("it is the same run");
        assert!(error.to_string().contains("is this very run"), "{error:#}");
        run.began = "2026-01-03T03:04:05Z".to_owned();
        let text = against(&run, kept).expect("it can be read");
        assert!(
            text.contains("Worse by more than the spread: nothing"),
            "{text}"
        );
    }
}
