//! How fast the answer came to one user, and how evenly among users.

use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::{label, measured};
use crate::report::table::{Entry, Table};
use crate::stats::metric::Metric;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new(["phase", "variant", "n", "mean tok/s", "SD", "CV", "range"]);
    for cell in measured(summary) {
        let sample = cell.latency.get(&Metric::UserSpeed);
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            sample.map_or(0, |sample| sample.n).into(),
            sample.map(|sample| sample.mean).into(),
            sample.and_then(|sample| sample.sd).into(),
            percent(sample.and_then(|sample| sample.cv)).into(),
            Entry::Range(sample.map(|sample| (sample.min, sample.max))),
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    vec![
        Block::Table(table),
        Block::text("Output tokens / E2EL of each request, waiting for the first token included."),
    ]
}
