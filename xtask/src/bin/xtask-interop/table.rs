//! Tables for terminals and Markdown.

use std::iter::once;

/// A table. Every row has as many cells as the head.
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }

    /// The table as text with aligned columns.
    pub(crate) fn text(&self) -> String {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let padded = cells.map(|(cell, width)| format!("{cell:<width$}"));
            let line = padded.collect::<Vec<_>>().join("  ");
            format!("{}\n", line.trim_end())
        };
        once(&self.head).chain(&self.rows).map(line).collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |row: &Vec<String>| {
            let cells: Vec<_> = row.iter().map(|cell| escape(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        let rows = self.rows.iter().map(line);
        once(line(&self.head))
            .chain(once(rule))
            .chain(rows)
            .collect()
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.head.len()];
        for row in once(&self.head).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

/// Escapes text for a Markdown cell.
pub(crate) fn escape(text: &str) -> String {
    let escaped = text.replace('|', "\\|");
    escaped.replace('*', "\\*").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::Table;

    fn table() -> Table {
        let mut table = Table::new(["pair", "n"]);
        table.push(["Rust → Go", "1"]);
        table.push(["a|b", "<22>"]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "pair       n\nRust → Go  1\na|b        <22>\n";
        assert_eq!(table().text(), expected);
    }

    #[test]
    fn markdown_has_a_rule_and_cells_that_stay_what_they_are() {
        let expected = "| pair | n |\n|---|---|\n| Rust → Go | 1 |\n| a\\|b | &lt;22> |\n";
        assert_eq!(table().markdown(), expected);
    }
}
