//! Markdown tables that are also readable in a terminal.

use std::fmt;

/// A titled table; every row has as many cells as there are columns.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// # Panics
    ///
    /// When the row has another number of cells than the table has columns.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.columns.len(), "cells of a row of `{}`", self.title);
        self.rows.push(row);
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]);
            cells.chain([&self.columns[column]]).map(|cell| cell.chars().count()).max()
        };
        (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")
        };
        if !self.title.is_empty() {
            writeln!(f, "**{}**\n", self.title)?;
        }
        line(f, &self.columns)?;
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        line(f, &dashes)?;
        for row in &self.rows {
            line(f, row)?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_columns_below_each_other() {
        let mut table = Table::new("reads", &["who", "rate"]);
        table.push(vec!["we".to_owned(), "12".to_owned()]);
        table.push(vec!["others".to_owned(), "3".to_owned()]);
        let expected = "**reads**\n\n| who    | rate |\n| ------ | ---- |\n\
                        | we     | 12   |\n| others | 3    |\n";
        assert_eq!(table.to_string(), expected);
    }
}
