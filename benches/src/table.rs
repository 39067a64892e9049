//! The result: medians, ranges and ratios, in Markdown.

use std::fmt;

use crate::peers::Kind;

/// Some measurements of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    sorted: Vec<f64>,
}

impl Cell {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self { sorted }
    }

    /// The middle one, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let n = self.sorted.len();
        match n {
            0 => f64::NAN,
            _ if n % 2 == 1 => self.sorted[n / 2],
            _ => f64::midpoint(self.sorted[n / 2 - 1], self.sorted[n / 2]),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |value: f64| match value.abs() {
            v if v >= 1000.0 => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        let one = |value: f64| format!("{value:.*}", digits(value));
        write!(f, "{}", one(self.median()))?;
        match &self.sorted[..] {
            [least, .., most] => write!(f, " ({}-{})", one(*least), one(*most)),
            _ => Ok(()),
        }
    }
}

/// A cell for each peer that has one.
pub(crate) type Row = Vec<(Kind, Cell)>;

/// Whom the outrigger's medians are divided by.
const RATIOS: [Kind; 5] = [Kind::Before, Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Relay];

/// Rows of cells, a column per peer.
pub(crate) struct Table {
    columns: Vec<(Kind, String)>,
    rows: Vec<(String, Row)>,
    notes: Vec<String>,
}

impl Table {
    /// A column for each of these, with its version.
    pub(crate) fn new(columns: Vec<(Kind, String)>) -> Self {
        Self { columns, rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn columns(&self) -> &[(Kind, String)] {
        &self.columns
    }

    pub(crate) fn rows(&self) -> &[(String, Row)] {
        &self.rows
    }

    pub(crate) fn row(&mut self, name: &str, cells: Row) {
        self.rows.push((name.to_owned(), cells));
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio_to = |kind: Kind| self.columns.iter().any(|(column, _)| *column == kind);
        let ratios: Vec<Kind> =
            RATIOS.into_iter().filter(|kind| ratio_to(Kind::Outrigger) && ratio_to(*kind)).collect();
        write!(f, "| median (range) |")?;
        for (kind, version) in &self.columns {
            let space = if version.is_empty() { "" } else { " " };
            write!(f, " {kind}{space}{version} |")?;
        }
        for kind in &ratios {
            write!(f, " / {kind} |")?;
        }
        write!(f, "\n|---|{}", "---|".repeat(self.columns.len() + ratios.len()))?;
        for (name, cells) in &self.rows {
            let of = |kind: Kind| cells.iter().find(|(cell, _)| *cell == kind).map(|(_, cell)| cell);
            write!(f, "\n| {name} |")?;
            for (kind, _) in &self.columns {
                match of(*kind) {
                    Some(cell) => write!(f, " {cell} |")?,
                    None => write!(f, " - |")?,
                }
            }
            for kind in &ratios {
                match (of(Kind::Outrigger), of(*kind)) {
                    (Some(ours), Some(theirs)) => write!(f, " {:.2} |", ours.median() / theirs.median())?,
                    _ => write!(f, " - |")?,
                }
            }
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        for note in &self.notes {
            write!(f, "\n- {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_tells_its_median_and_its_range() {
        for (values, told) in
            [(&[3.0, 1.0, 2.0][..], "2.00 (1.00-3.00)"), (&[10.0, 20.0], "15.0 (10.0-20.0)"), (&[1234.5], "1234")]
        {
            assert_eq!(Cell::of(values.iter().copied()).to_string(), told);
        }
    }

    #[test]
    fn a_table_has_medians_ratios_and_what_there_is_to_say() {
        let columns = vec![(Kind::Outrigger, "0.1".into()), (Kind::Relay, String::new()), (Kind::Nginx, "1.22".into())];
        let mut table = Table::new(columns);
        table.row("x", vec![(Kind::Outrigger, Cell::of([3.0])), (Kind::Nginx, Cell::of([4.0]))]);
        table.note("x: relay speaks no TLS".into());
        let expected = "\
| median (range) | outrigger 0.1 | relay | nginx 1.22 | / nginx | / relay |
|---|---|---|---|---|---|
| x | 3.00 | - | 4.00 | 0.75 | - |

- x: relay speaks no TLS";
        assert_eq!(table.to_string(), expected);
    }
}
