//! Aligned columns without boxes.

use crate::output::one_line;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Quantities.
    Right,
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

/// Space between two columns.
const GAP: &str = "  ";

impl Table {
    pub(crate) fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, Align)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(name, align)| (name.into(), align))
            .collect();
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row: a text per column, an empty one shown as `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| match cell.is_empty() {
            true => "-".to_owned(),
            false => one_line(&cell).replace('\n', " "),
        });
        self.rows.push(cells.collect());
    }

    /// The lines of the table, each without trailing blanks.
    pub(crate) fn lines(&self, header: bool) -> Vec<String> {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let shown = header.then_some(&names).into_iter().chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = shown.clone().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        shown
            .map(|row| {
                let cells = row.iter().zip(&widths).zip(&self.columns);
                let cells = cells.map(|((cell, &width), (_, align))| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                });
                cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
            })
            .collect()
    }
}

/// Lines of `name  value` for one thing, the names in one column.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> Vec<String> {
    let width = pairs
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let filled = pairs.iter().filter(|(_, value)| !value.is_empty());
    filled
        .map(|(name, value)| format!("{name:<width$}{GAP}{}", one_line(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_names() {
        let mut table = Table::new([
            ("ID", Align::Right),
            ("NAME", Align::Left),
            ("X", Align::Left),
        ]);
        table.row(["100".to_owned(), "a".to_owned(), String::new()]);
        table.row(["7".to_owned(), "longer".to_owned(), "é\x1b[1m".to_owned()]);
        assert_eq!(
            table.lines(true),
            [
                " ID  NAME    X",
                "100  a       -",
                "  7  longer  é\u{fffd}[1m"
            ]
        );
        assert_eq!(table.lines(false).len(), 2);
    }
}
