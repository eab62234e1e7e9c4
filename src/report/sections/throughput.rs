//! Throughput in both windows, each named.

use crate::report::block::Block;
use crate::report::sections::{label, measured};
use crate::report::table::Table;
use crate::stats::cell::{Cell, Throughput};
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    if measured(summary).next().is_none() {
        return Vec::new();
    }
    vec![
        Block::subheading(
            "Steady window: all users busy (an open loop: at its level of requests in flight), until sending stopped",
        ),
        Block::Table(table(summary, |cell| &cell.steady)),
        Block::subheading("Whole phase: ramp and drain included"),
        Block::Table(table(summary, |cell| &cell.whole)),
        Block::text(
            "Mean over trials ± half of the 95 % interval. Total counts input and output tokens. Only whole (ok) \
             requests give tokens.",
        ),
    ]
}

fn table(summary: &Summary, window: fn(&Cell) -> &Throughput) -> Table {
    let titles = [
        "phase",
        "variant",
        "trials",
        "mean window s",
        "output tok/s",
        "total tok/s",
        "requests/s",
    ];
    let mut table = Table::new(titles);
    for cell in measured(summary) {
        let rates = window(cell);
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            rates.duration_s.map_or(0, |duration| duration.trials).into(),
            rates.duration_s.map(|duration| duration.mean).into(),
            rates.output_tokens_per_s.into(),
            rates.total_tokens_per_s.into(),
            rates.requests_per_s.into(),
        ]);
    }
    table
}
