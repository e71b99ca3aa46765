// SPDX-License-Identifier: GPL-2.0

//! Tables with columns of fixed widths, as IBM's tools print them.

/// A column: its title, and how many characters its cells have at least. Columns are a blank apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The title.
    pub title: &'static str,
    /// Characters of a cell; a longer one moves what follows in its line.
    pub width: usize,
}

/// The columns of a table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
}

impl Table {
    /// Adds columns at the end.
    pub fn add(&mut self, columns: &[Column]) -> &mut Self {
        self.columns.extend(columns);
        self
    }

    /// The line with the titles.
    pub fn header(&self) -> String {
        self.row(self.columns.iter().map(|column| column.title))
    }

    /// A line. It may have fewer cells than there are columns.
    pub fn row<S: AsRef<str>>(&self, cells: impl IntoIterator<Item = S>) -> String {
        let mut line = String::new();
        for (column, cell) in self.columns.iter().zip(cells) {
            line.push_str(&format!("{:1$} ", cell.as_ref(), column.width));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        table
            .add(&[Column {
                title: "State",
                width: 6,
            }])
            .add(&[
                Column {
                    title: "A",
                    width: 3,
                },
                Column {
                    title: "Mode",
                    width: 4,
                },
            ]);
        table
    }

    #[test]
    fn cells_stand_under_their_titles() {
        let table = table();
        assert_eq!(table.header(), "State  A   Mode");
        assert_eq!(table.row(["ACTIVE", "x", "SMCR"]), "ACTIVE x   SMCR");
        assert_eq!(table.row(["INIT", "", "TCP"]), "INIT       TCP");
    }

    #[test]
    fn a_line_may_end_early_and_a_long_cell_is_whole() {
        let table = table();
        assert_eq!(table.row(["INIT"]), "INIT");
        assert_eq!(table.row(["a", "longer", "b"]), "a      longer b");
        assert_eq!(table.row(["a", "b", "c", "too many"]), "a      b   c");
    }
}
