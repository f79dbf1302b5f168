//! The tables of a run: one for each section and baseline.

use super::grid::{Grid, Text, Tone};
use super::units;
use super::view::{Line, Panel, Reading, Section, Standing};
use crate::results::Metric;

/// The title and the table of a panel.
pub(crate) fn of_panel(section: &Section<'_>, panel: &Panel<'_>) -> (String, Grid) {
    let title = match section.panels.len() {
        1 => section.name.to_owned(),
        _ => format!("{}, beside {}", section.name, panel.base),
    };
    let head = ["workload", "metric"].into_iter();
    let mut grid = Grid::new(2, head.chain(panel.variants.iter().copied()));
    let mut last = None;
    for line in &panel.lines {
        // A workload with several metrics is named once.
        let name = match last.replace(line.workload) == Some(line.workload) {
            true => "",
            false => line.workload,
        };
        grid.rows.push(row(name, line));
    }
    (title, grid)
}

fn row(name: &str, line: &Line<'_>) -> Vec<Text> {
    let mut row = vec![Text::new(name), Text::new(units::label(line.metric))];
    let readings = line.readings.iter();
    row.extend(readings.map(|reading| cell(line.metric, reading)));
    row
}

/// The text of a cell: the ratio with its spread, or the value if there is no ratio, or the note.
pub(crate) fn cell(metric: Metric, reading: &Reading<'_>) -> Text {
    if let Some(ratio) = &reading.ratio {
        let text = Text::new(units::ratio(ratio.median)).small(units::ratio_spread(ratio));
        return text.tone(match reading.standing(metric) {
            Standing::Better => Tone::Good,
            Standing::Worse => Tone::Bad,
            Standing::Even => Tone::Plain,
        });
    }
    match (&reading.value, reading.note) {
        (Some(value), _) => Text::new(units::value(metric, value.median)),
        (None, Some(note)) => Text::new(note).tone(Tone::Bad),
        (None, None) => Text::new("–"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{cell, hangs, row, run};
    use crate::report::view::sections;

    #[test]
    fn a_baseline_shows_its_value_and_the_others_their_ratio() {
        let cells = vec![
            cell("plain tonic", &[1000.0, 2000.0, 1500.0]),
            cell("forward tunnel", &[2000.0, 4200.0, 3000.0]),
        ];
        let run = run(vec![row("unary 16 B x 1", Metric::CallRate, cells)]);
        let sections = sections(&run);
        let (title, grid) = of_panel(&sections[0], &sections[0].panels[0]);
        assert_eq!(title, "unary");
        let expected = "| unary 16 B x 1 | calls | 1.50 k/s | 2.00 (2.00–2.10) |\n";
        assert!(grid.markdown().ends_with(expected), "{}", grid.markdown());
    }

    #[test]
    fn where_the_baseline_hangs_the_others_show_their_values() {
        let cells = vec![hangs("plain tonic"), cell("forward tunnel", &[92_000.0])];
        let run = run(vec![row("unread", Metric::CallRate, cells)]);
        let sections = sections(&run);
        let (_, grid) = of_panel(&sections[0], &sections[0].panels[0]);
        let expected = "| unread | calls | hangs | 92.0 k/s |\n";
        assert!(grid.markdown().ends_with(expected), "{}", grid.markdown());
    }

    #[test]
    fn a_workload_of_several_metrics_is_named_once() {
        let cells = vec![cell("plain tonic", &[1.0])];
        let rows = [Metric::CallRate, Metric::P50].map(|m| row("unary", m, cells.clone()));
        let run = run(rows.to_vec());
        let sections = sections(&run);
        let (_, grid) = of_panel(&sections[0], &sections[0].panels[0]);
        let names: Vec<_> = grid.rows.iter().map(|row| row[0].main.as_str()).collect();
        assert_eq!(names, ["unary", ""]);
    }
}
