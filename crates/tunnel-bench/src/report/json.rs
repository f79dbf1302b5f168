//! A run as a JSON file, for programs and for comparison with later runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::results::Run;

/// The format version of a file, which is read first.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

pub(crate) fn text(run: &Run) -> Result<String> {
    let text = serde_json::to_string_pretty(run).context("cannot write the run as JSON")?;
    Ok(text + "\n")
}

pub(crate) fn read(path: &Path) -> Result<Run> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("cannot compare with {}", path.display()))
}

fn parse(text: &[u8]) -> Result<Run> {
    let Format { format } = serde_json::from_slice(text)?;
    ensure!(
        format == Run::FORMAT,
        "its format is {format}, and this program reads format {}: \
         measure again, or compare with the version that wrote it",
        Run::FORMAT
    );
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row, run};
    use crate::results::Metric;

    #[test]
    fn a_run_that_was_written_reads_the_same() {
        let cells = vec![cell("plain tonic", &[0.1, 1e9]), hangs("forward tunnel")];
        let run = run(vec![row("unary", Metric::CpuPerCall, cells)]);
        let text = text(&run).expect("it can be written");
        assert_eq!(parse(text.as_bytes()).expect("it can be read"), run);
    }

    #[test]
    fn a_file_of_an_unknown_format_is_refused_whatever_else_it_holds() {
        let error = parse(br#"{"format": 2, "results": {}}"#).expect_err("2 is unknown");
        let text = format!("{error:#}");
        assert!(
            text.contains("format is 2") && text.contains("reads format 1"),
            "{text}"
        );
    }

    #[test]
    fn a_file_of_something_else_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("there is room for a file");
        let file = dir.path().join("list.json");
        fs::write(&file, "[]").expect("it can be written");
        let error = read(&file).expect_err("it is no run");
        assert!(
            format!("{error:#}").contains("cannot compare with"),
            "{error:#}"
        );
    }
}
