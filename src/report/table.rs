//! A table: titles, rows of entries, and the one way to line them up.

use crate::report::figure::{self, ABSENT};
use crate::stats::interval::OverTrials;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Text(String),
    Count(u64),
    Number(Option<f64>),
    /// A mean over trials with half of its interval's width.
    Mean(Option<OverTrials>),
    Range(Option<(f64, f64)>),
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Entry {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<Option<f64>> for Entry {
    fn from(value: Option<f64>) -> Self {
        Self::Number(value)
    }
}

impl From<Option<OverTrials>> for Entry {
    fn from(value: Option<OverTrials>) -> Self {
        Self::Mean(value)
    }
}

impl Entry {
    /// The values that decide the column's decimals.
    fn values(&self) -> impl Iterator<Item = f64> {
        let (a, b) = match self {
            Self::Text(_) | Self::Count(_) => (None, None),
            Self::Number(value) => (*value, None),
            Self::Mean(mean) => (mean.map(|mean| mean.mean), None),
            Self::Range(range) => (range.map(|r| r.0), range.map(|r| r.1)),
        };
        a.into_iter().chain(b)
    }

    fn show(&self, decimals: usize) -> String {
        let number = |value| figure::number(value, decimals);
        let shown = match self {
            Self::Text(text) => Some(text.clone()),
            Self::Count(count) => Some(count.to_string()),
            Self::Number(value) => value.map(number),
            Self::Range(range) => range.map(|(a, b)| format!("{} to {}", number(a), number(b))),
            Self::Mean(mean) => mean.map(|mean| match mean.half_width() {
                Some(half) => {
                    format!("{} ± {}", number(mean.mean), figure::half_width(half, decimals))
                }
                None => number(mean.mean),
            }),
        };
        shown.unwrap_or_else(|| ABSENT.to_owned())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<Entry>>,
    /// Columns from this one on are of one kind and take its decimals.
    alike_from: Option<usize>,
}

impl Table {
    pub(crate) fn new<T: Into<String>>(titles: impl IntoIterator<Item = T>) -> Self {
        Self {
            titles: titles.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            alike_from: None,
        }
    }

    /// Columns from `column` on show the same quantity: they take its decimals.
    pub(crate) fn alike_from(mut self, column: usize) -> Self {
        self.alike_from = Some(column);
        self
    }

    pub(crate) fn row(&mut self, row: Vec<Entry>) {
        debug_assert_eq!(row.len(), self.titles.len(), "{row:?}");
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Numbers stand to the right.
    fn is_right(&self, column: usize) -> bool {
        let mut entries = self.rows.iter().filter_map(|row| row.get(column));
        entries.all(|entry| !matches!(entry, Entry::Text(_)))
    }

    /// Titles and then rows, as text. Columns without any value stay: their absence is a fact.
    fn shown(&self) -> Vec<Vec<String>> {
        let column = |n: usize| self.rows.iter().filter_map(move |row| row.get(n));
        let decides = |n: usize| self.alike_from.map_or(n, |from| n.min(from));
        let decimals: Vec<usize> = (0..self.titles.len())
            .map(|n| figure::decimals(column(decides(n)).flat_map(Entry::values)))
            .collect();
        let show = |row: &Vec<Entry>| -> Vec<String> {
            row.iter().zip(&decimals).map(|(entry, decimals)| entry.show(*decimals)).collect()
        };
        std::iter::once(self.titles.clone()).chain(self.rows.iter().map(show)).collect()
    }

    /// Columns lined up by spaces, for a terminal.
    pub(crate) fn aligned(&self) -> String {
        let lines = self.padded(str::to_owned);
        lines.iter().map(|line| line.join("  ").trim_end().to_owned() + "\n").collect()
    }

    /// A Markdown table, readable as it stands. `escape` makes a text harmless in a cell.
    pub(crate) fn markdown(&self, escape: impl Fn(&str) -> String) -> String {
        let mut lines = self.padded(escape);
        let rule = lines.first().into_iter().flatten().enumerate().map(|(column, title)| {
            let dashes = "-".repeat(width(title).saturating_sub(1));
            if self.is_right(column) { format!("{dashes}:") } else { format!("{dashes}-") }
        });
        let rule: Vec<String> = rule.collect();
        lines.insert(1.min(lines.len()), rule);
        lines.iter().map(|line| format!("| {} |\n", line.join(" | "))).collect()
    }

    fn padded(&self, escape: impl Fn(&str) -> String) -> Vec<Vec<String>> {
        let lines: Vec<Vec<String>> = self
            .shown()
            .into_iter()
            .map(|line| line.iter().map(|text| escape(text)).collect())
            .collect();
        let widths: Vec<usize> = (0..self.titles.len())
            .map(|n| lines.iter().filter_map(|line| line.get(n)).map(|t| width(t)).max())
            .map(|widest| widest.unwrap_or(0).max(3))
            .collect();
        let pad = |line: Vec<String>| -> Vec<String> {
            let cells = line.into_iter().zip(&widths).enumerate();
            cells
                .map(|(column, (text, widest))| {
                    let space = " ".repeat(widest.saturating_sub(width(&text)));
                    if self.is_right(column) { space + &text } else { text + &space }
                })
                .collect()
        };
        lines.into_iter().map(pad).collect()
    }
}

/// Characters, not bytes; wide scripts are not expected in names.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["variant", "tok/s", "TTFT p99", "sent"]);
        let mean = OverTrials::of(&[1630.0, 1640.0]);
        table.row(vec!["a|b".into(), mean.into(), None::<f64>.into(), 5.into()]);
        table.row(vec!["c".into(), OverTrials::of(&[224.6]).into(), Some(12.34).into(), 10.into()]);
        table
    }

    #[test]
    fn markdown_lines_up() {
        let got = table().markdown(|text| text.replace('|', "\\|"));
        let expected = "\
| variant |     tok/s | TTFT p99 | sent |
| ------- | --------: | -------: | ---: |
| a\\|b    | 1635 ± 64 |        – |    5 |
| c       |       225 |     12.3 |   10 |
";
        assert_eq!(got, expected);
    }

    #[test]
    fn columns_of_one_quantity_share_their_decimals() {
        let mut table = Table::new(["n", "mean", "max"]).alike_from(1);
        table.row(vec![5.into(), Some(9.031).into(), Some(250.0).into()]);
        assert_eq!(table.aligned().lines().last(), Some("  5  9.03  250.00"));
    }

    #[test]
    fn a_terminal_gets_the_same_without_bars() {
        let expected = "\
variant      tok/s  TTFT p99  sent
a|b      1635 ± 64         –     5
c              225      12.3    10
";
        assert_eq!(table().aligned(), expected);
    }
}
