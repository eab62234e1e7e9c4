//! The table that answers the question the sweep was made for.

use crate::ids::wire_name;
use crate::report::block::Block;
use crate::report::sections::{floor_note, label, measured};
use crate::report::table::Table;
use crate::stats::cell::Cell;
use crate::stats::metric::Metric;
use crate::stats::quantile::Percentile;
use crate::stats::summary::Summary;

/// What the table's columns mean, for whoever sees nothing else.
pub(crate) const CAPTION: &str = "Output tok/s: steady window, mean over trials ± half of its \
     95 % interval (none for a single trial). Latencies in ms, over the requests of all trials. \
     Trials: measured / planned.";

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    if summary.cells.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Table(table(summary))];
    blocks.push(Block::Text(format!("{CAPTION} Marks are explained below.")));
    if measured(summary).any(|cell| cell.trials_measured == 2) {
        blocks.push(Block::text(
            "With two trials the interval is wide because two values say little about their spread; a third block \
             narrows it more than longer phases do.",
        ));
    }
    let samples = measured(summary).flat_map(|cell| {
        [Metric::Ttft, Metric::E2el].into_iter().map(|metric| cell.latency.get(&metric))
    });
    blocks.extend(floor_note(samples, &[Percentile::P50, Percentile::P95, Percentile::P99]));
    blocks
}

pub(crate) fn table(summary: &Summary) -> Table {
    let mut table = Table::new([
        "phase",
        "variant",
        "trials",
        "output tok/s",
        "TTFT p50",
        "TTFT p95",
        "TPOT p50",
        "E2EL p50",
        "E2EL p99",
        "ok / sent",
        "marks",
    ]);
    for cell in &summary.cells {
        let sample = |metric| cell.latency.get(&metric);
        let p50 = |metric| sample(metric).and_then(|sample| sample.p50);
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            format!("{} / {}", cell.trials_measured, cell.trials_planned).into(),
            cell.steady.output_tokens_per_s.into(),
            p50(Metric::Ttft).into(),
            sample(Metric::Ttft).and_then(|sample| sample.p95).into(),
            p50(Metric::Tpot).into(),
            p50(Metric::E2el).into(),
            sample(Metric::E2el).and_then(|sample| sample.p99).into(),
            format!("{} / {}", cell.requests.ok, cell.requests.sent).into(),
            marks(summary, cell).into(),
        ]);
    }
    table
}

fn marks(summary: &Summary, cell: &Cell) -> String {
    let mut codes: Vec<String> =
        summary.cell_marks(cell).map(|mark| wire_name(&mark.code)).collect();
    codes.dedup();
    codes.join(", ")
}
