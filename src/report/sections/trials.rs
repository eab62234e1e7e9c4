//! The replicates themselves: what each trial gave, beside the figures over trials.

use crate::ids::wire_name;
use crate::report::block::Block;
use crate::report::sections::{floor_note, label};
use crate::report::table::Table;
use crate::stats::metric::Metric;
use crate::stats::quantile::Percentile;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new([
        "phase",
        "variant",
        "block",
        "ended",
        "steady tok/s",
        "whole tok/s",
        "TTFT p50",
        "TTFT p95",
        "TPOT p50",
        "E2EL p50",
        "ok / sent",
    ]);
    for cell in &summary.cells {
        for trial in &cell.trials {
            let sample = |metric| trial.latency.get(&metric);
            let p50 = |metric| sample(metric).and_then(|sample| sample.p50);
            let rate = |window: &Option<crate::stats::window::Window>| {
                window.and_then(|window| window.output_tokens_per_s)
            };
            table.row(vec![
                cell.phase.as_str().into(),
                label(summary, &cell.variant).into(),
                u64::from(trial.block).into(),
                wire_name(&trial.end).into(),
                rate(&trial.steady).into(),
                rate(&trial.whole).into(),
                p50(Metric::Ttft).into(),
                sample(Metric::Ttft).and_then(|sample| sample.p95).into(),
                p50(Metric::Tpot).into(),
                p50(Metric::E2el).into(),
                format!("{} / {}", trial.requests.ok, trial.requests.sent).into(),
            ]);
        }
    }
    if table.is_empty() {
        return Vec::new();
    }
    let trials = summary.cells.iter().flat_map(|cell| &cell.trials);
    let samples = trials.map(|trial| trial.latency.get(&Metric::Ttft));
    let mut blocks = vec![Block::Table(table)];
    blocks.extend(floor_note(samples, &[Percentile::P50, Percentile::P95]));
    blocks
}
