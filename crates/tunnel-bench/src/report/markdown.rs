//! The Markdown report of a run.

use std::fmt::{self, Write as _};

use super::{facts, table, verdicts, view};
use crate::results::Run;

pub(crate) fn text(run: &Run) -> String {
    let mut text = String::new();
    write(&mut text, run).expect("writing to a string never fails");
    text
}

fn write(text: &mut String, run: &Run) -> fmt::Result {
    writeln!(text, "# Tunnels beside plain tonic\n")?;
    for (name, value) in facts::of(run) {
        writeln!(text, "- {name}: {value}")?;
    }
    let verdicts = verdicts::of(run);
    writeln!(text, "\n## Targets\n\n{}\n", verdicts.counts)?;
    for grid in verdicts.grids {
        writeln!(text, "{}", grid.markdown())?;
    }
    writeln!(text, "## Measurements\n\n{}", facts::LEGEND)?;
    for section in view::sections(run) {
        for panel in &section.panels {
            let (title, grid) = table::of_panel(&section, panel);
            writeln!(text, "\n### {title}\n\n{}", grid.markdown().trim_end())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, row, run};
    use crate::results::Metric;

    #[test]
    fn it_says_where_it_was_measured_and_has_a_table_for_each_group() {
        let cells = vec![cell("plain tonic", &[1.0]), cell("forward tunnel", &[2.0])];
        let rows = ["unary 16 B x 1", "download 1 KiB x 1"]
            .map(|name| row(name, Metric::CallRate, cells.clone()));
        let text = text(&run(rows.to_vec()));
        for expected in [
            "- machine: Example CPU @ 2.00GHz, 2 cores, Linux 6.1\n",
            "- commit: 0123456789\n",
            "\n### unary\n\n| workload | metric | plain tonic | forward tunnel |\n",
            "\n### download\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
