//! Tables for terminals and Markdown.

use std::ops::Range;

use comfy_table::{
    Cell as TableCell, CellAlignment, Color, ColumnConstraint, ContentArrangement, LineStyle,
    Table, TableStyle, Width,
};

/// A table. Every row has as many cells as the head.
pub(crate) struct Grid {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<Text>>,
    /// The number of text columns, from the left. The other columns are numbers.
    pub(crate) words: usize,
}

/// The content of a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Text {
    pub(crate) main: String,
    /// Shown in a second line, or in parentheses.
    pub(crate) small: Option<String>,
    pub(crate) tone: Tone,
}

/// The colour of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
}

impl Text {
    pub(crate) fn new(main: impl Into<String>) -> Self {
        Self {
            main: main.into(),
            ..Self::default()
        }
    }

    pub(crate) fn small(self, small: impl Into<String>) -> Self {
        Self {
            small: Some(small.into()),
            ..self
        }
    }

    pub(crate) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn one_line(&self) -> String {
        match &self.small {
            Some(small) if self.main.is_empty() => small.clone(),
            Some(small) => format!("{} ({small})", self.main),
            None => self.main.clone(),
        }
    }

    fn two_lines(&self) -> String {
        match &self.small {
            Some(small) if self.main.is_empty() => small.clone(),
            Some(small) => format!("{}\n{small}", self.main),
            None => self.main.clone(),
        }
    }
}

impl Grid {
    pub(crate) fn new(words: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            words,
        }
    }

    /// Formats the table for the terminal. If it is too wide, it is split into several tables with
    /// some of the number columns each. Without a terminal it stays one table.
    pub(crate) fn terminal(&self) -> String {
        let table = Table::new();
        match table.width().filter(|_| table.is_tty()) {
            Some(width) => self.within(width),
            None => self.part(self.words..self.head.len(), WITHOUT_TERMINAL),
        }
    }

    fn within(&self, width: u16) -> String {
        let words: u16 = (0..self.words).map(|column| self.widest(column) + 1).sum();
        // Words can be wrapped, numbers cannot.
        let room = width - words.min(width / 2);
        let at_once = usize::from((room / NUMBERS).max(1));
        let numbers = self.head.len() - self.words;
        // Distribute the columns evenly over the tables.
        let tables = numbers.div_ceil(at_once).max(1);
        let at_once = numbers.div_ceil(tables).max(1);
        let starts = (self.words..self.head.len()).step_by(at_once);
        let part = |start: usize| self.part(start..(start + at_once).min(self.head.len()), width);
        starts.map(part).collect()
    }

    /// The width of a text column.
    fn widest(&self, column: usize) -> u16 {
        let lines = self.rows.iter().flat_map(|row| {
            let small = row[column].small.as_deref().unwrap_or_default();
            [&row[column].main, small]
        });
        let widest = lines.map(|line| line.chars().count()).max().unwrap_or(0);
        u16::try_from(widest).unwrap_or(WORDS).min(WORDS)
    }

    /// A table of the text columns and these number columns.
    fn part(&self, numbers: Range<usize>, width: u16) -> String {
        let columns = || (0..self.words).chain(numbers.clone());
        let mut table = Table::new();
        table.load_style(RULES);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
        table.set_header(columns().map(|column| &self.head[column]));
        for (i, row) in self.rows.iter().enumerate() {
            // A row without a name belongs to the row above.
            if i > 0 && !row[0].main.is_empty() {
                table.add_row([""]);
            }
            table.add_row(columns().map(|column| table_cell(&row[column])));
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 1));
            column.set_constraint(match i < self.words {
                true => ColumnConstraint::UpperBoundary(Width::Fixed(WORDS)),
                false => ColumnConstraint::Absolute(Width::Fixed(NUMBERS)),
            });
            if i >= self.words {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{}\n", table.trim_fmt())
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let head = line(self.head.iter().map(|cell| escape(cell)).collect());
        let rule = "---|".repeat(self.words) + &"---:|".repeat(self.head.len() - self.words);
        let rows = self.rows.iter().map(|row| {
            let cells = row.iter().map(|cell| escape(&cell.one_line()));
            line(cells.collect())
        });
        format!("{head}|{rule}\n{}", rows.collect::<String>())
    }
}

/// The widths beyond which text columns and the heads of number columns are wrapped. Every spread
/// fits, such as "0.047–0.49".
const WORDS: u16 = 34;
const NUMBERS: u16 = 12;

/// The width of a table without a terminal.
const WITHOUT_TERMINAL: u16 = 150;

const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
const RULES: TableStyle = TableStyle::new()
    .top_border(RULE)
    .header_separator(RULE)
    .bottom_border(RULE);

fn table_cell(text: &Text) -> TableCell {
    let cell = TableCell::new(text.two_lines());
    match text.tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Bad => cell.fg(Color::Red),
    }
}

/// Escapes text for a Markdown cell.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(1, ["workload", "forward"]);
        let ratio = Text::new("2.05").small("1.95–2.11").tone(Tone::Good);
        grid.rows.push(vec![Text::new("a|b"), ratio]);
        grid
    }

    #[test]
    fn markdown_puts_what_is_small_in_parentheses() {
        let expected = "| workload | forward |\n|---|---:|\n| a\\|b | 2.05 (1.95–2.11) |\n";
        assert_eq!(grid().markdown(), expected);
    }

    #[test]
    fn a_terminal_shows_what_is_small_in_a_second_line() {
        let text = grid().terminal();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert!(
            lines.iter().any(|line| line.ends_with("     2.05")),
            "{text}"
        );
        assert!(
            lines.iter().any(|line| line.ends_with(" 1.95–2.11")),
            "{text}"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_several_tables_and_no_number_is_broken() {
        let mut wide = Grid::new(1, ["workload", "a", "b", "c", "d", "e"]);
        let numbers = [1, 2, 3, 4, 5].map(|n| Text::new(format!("0.{n}47–0.{n}9")));
        let name = Text::new("unary 16 B x 16 beside 64 unread streams");
        wide.rows.push([vec![name], numbers.to_vec()].concat());
        let text = wide.within(60);
        for n in 1..=5 {
            assert!(text.contains(&format!("0.{n}47–0.{n}9")), "{text}");
        }
        assert_eq!(text.matches("workload").count(), 3, "{text}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(60), "{text}");
    }
}
