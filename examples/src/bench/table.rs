//! A table of text, for a terminal or a document.

use std::fmt::Write;

/// Columns with names, and rows that have as many.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, row: [String; N]) {
        debug_assert_eq!(N, self.columns.len(), "a row of another table");
        self.rows.push(row.into());
    }

    /// For a terminal: columns under each other.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |n: usize| lines().map(|line| line[n].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            let mut padded = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(padded, "{cell:<width$}  ");
            }
            text.push_str(padded.trim_end());
            text.push('\n');
        }
        text
    }

    /// For a document in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.columns);
        let _ = writeln!(text, "|{}", "---|".repeat(self.columns.len()));
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_under_each_other() {
        let mut table = Table::new(&["a", "long name"]);
        table.row(["wide cell".to_owned(), "b".to_owned()]);
        assert_eq!(table.text(), "a          long name\nwide cell  b\n");
        assert_eq!(table.markdown(), "| a | long name |\n|---|---|\n| wide cell | b |\n");
    }
}
