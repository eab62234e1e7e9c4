//! What the engines said of themselves while they worked: queue, cache, retractions, their own TTFT.

use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::stats::cell::Cell;
use crate::stats::engine::EngineOverTrials;
use crate::stats::interval::OverTrials;
use crate::stats::metric::Metric;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new([
        "phase",
        "variant",
        "running",
        "running max",
        "waiting",
        "waiting max",
        "KV cache max",
        "prompt cached",
        "retractions",
        "engine's TTFT ms",
        "client's TTFT ms",
    ]);
    let asked = summary.cells.iter().filter_map(|cell| Some((cell, cell.engine.as_ref()?)));
    let mut silent = 0;
    for (cell, engine) in asked {
        silent += engine.unanswered;
        row(summary, &mut table, cell, engine);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![
        Block::Table(table),
        Block::text(
            "From each engine's own metrics, asked once a second. Running and waiting: mean over the samples of a phase, then \
             over trials. Its TTFT is the mean of its own histogram and begins when the engine took the request in; the \
             client's mean begins when the request was sent.",
        ),
    ];
    if silent > 0 {
        blocks.push(Block::text(format!("{silent} times an engine did not answer in time.")));
    }
    blocks
}

fn row(summary: &Summary, table: &mut Table, cell: &Cell, engine: &EngineOverTrials) {
    let mean = |over: Option<OverTrials>| over.map(|over| over.mean);
    table.row(vec![
        cell.phase.as_str().into(),
        label(summary, &cell.variant).into(),
        mean(engine.running_mean).into(),
        engine.running_max.into(),
        mean(engine.waiting_mean).into(),
        engine.waiting_max.into(),
        percent(engine.kv_cache_usage_max).into(),
        percent(mean(engine.prefix_cache_hit_ratio)).into(),
        engine.retractions.into(),
        mean(engine.ttft_ms).into(),
        cell.latency.get(&Metric::Ttft).map(|ttft| ttft.mean).into(),
    ]);
}
