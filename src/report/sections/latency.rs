//! Latencies in full: one table a metric, then jitter, then other ways to take the same times.

use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::{floor_note, label, measured};
use crate::report::table::Table;
use crate::stats::cell::Cell;
use crate::stats::metric::Metric;
use crate::stats::quantile::{Distribution, Percentile};
use crate::stats::summary::Summary;

const MAIN: [(Metric, &str); 4] = [
    (Metric::Ttft, "TTFT: time to first token, ms"),
    (Metric::Tpot, "TPOT: time per output token after the first, ms"),
    (Metric::Itl, "ITL: gaps between chunks, ms"),
    (Metric::E2el, "E2EL: end-to-end latency, ms"),
];

/// Each beside the metric that it is another reading of.
const OTHER: [(Metric, Metric); 6] = [
    (Metric::TtftLowerBound, Metric::Ttft),
    (Metric::TtftFromScheduled, Metric::Ttft),
    (Metric::FirstChunk, Metric::Ttft),
    (Metric::ItlLowerBound, Metric::Itl),
    (Metric::ItlUpperBound, Metric::Itl),
    (Metric::E2elFromScheduled, Metric::E2el),
];

/// Another reading is shown where its mean is off by more than this.
const WORTH_SHOWING: f64 = 0.01;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    if measured(summary).next().is_none() {
        return Vec::new();
    }
    let mut blocks = Vec::new();
    for (metric, title) in MAIN {
        blocks.push(Block::subheading(title));
        blocks.push(Block::Table(table(summary, metric)));
        let samples = measured(summary).map(move |cell| cell.latency.get(&metric));
        blocks.extend(floor_note(samples, &Percentile::ALL));
    }
    blocks.push(Block::subheading("Jitter and the quality of the stamps"));
    blocks.push(Block::Table(stamps(summary)));
    blocks.push(Block::text(
        "TTFT jitter is p99 - mean. Censored: a time of which only bounds are known, because several chunks were \
         read at once. Own stamps: gaps whose two chunks were each stamped alone by the kernel. Read late: gaps \
         that have bounds only because the client read late; a stream's last token often arrives together with \
         the end of the stream and counts as neither.",
    ));
    let other = other(summary);
    if !other.is_empty() {
        blocks.push(Block::subheading("Other readings of the same times, where they differ"));
        blocks.push(Block::Table(other));
    }
    blocks
}

fn table(summary: &Summary, metric: Metric) -> Table {
    let titles = ["phase", "variant", "n", "mean", "SD", "min", "p50", "p90", "p95", "p99", "max"];
    let mut table = Table::new(titles).alike_from(3);
    for cell in measured(summary) {
        let sample = cell.latency.get(&metric);
        let figure = |pick: fn(&Distribution) -> Option<f64>| sample.and_then(pick).into();
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            sample.map_or(0, |sample| sample.n).into(),
            figure(|s| Some(s.mean)),
            figure(|s| s.sd),
            figure(|s| Some(s.min)),
            figure(|s| s.p50),
            figure(|s| s.p90),
            figure(|s| s.p95),
            figure(|s| s.p99),
            figure(|s| Some(s.max)),
        ]);
    }
    table
}

fn stamps(summary: &Summary) -> Table {
    let mut table = Table::new([
        "phase",
        "variant",
        "TTFT jitter ms",
        "ITL SD ms",
        "tokens per chunk",
        "TTFT censored",
        "ITL own stamps",
        "ITL read late",
    ]);
    for cell in measured(summary) {
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            cell.ttft_jitter_ms.into(),
            cell.latency.get(&Metric::Itl).and_then(|itl| itl.sd).into(),
            cell.output_tokens_per_chunk.into(),
            percent(cell.censoring.first_text_share()).into(),
            percent(cell.censoring.own_stamp_share()).into(),
            percent(cell.censoring.late_gap_share()).into(),
        ]);
    }
    table
}

fn other(summary: &Summary) -> Table {
    let titles = ["phase", "variant", "reading", "n", "mean", "p50", "p95", "p99", "max"];
    let mut table = Table::new(titles).alike_from(4);
    for cell in measured(summary) {
        for (metric, main) in OTHER {
            let Some(sample) = differing(cell, metric, main) else { continue };
            table.row(vec![
                cell.phase.as_str().into(),
                label(summary, &cell.variant).into(),
                metric.title().into(),
                sample.n.into(),
                Some(sample.mean).into(),
                sample.p50.into(),
                sample.p95.into(),
                sample.p99.into(),
                Some(sample.max).into(),
            ]);
        }
    }
    table
}

/// Bounds are always shown where there are any; other starting points where they matter.
fn differing(cell: &Cell, metric: Metric, main: Metric) -> Option<&Distribution> {
    let (sample, main) = (cell.latency.get(&metric)?, cell.latency.get(&main)?);
    let bound =
        matches!(metric, Metric::TtftLowerBound | Metric::ItlLowerBound | Metric::ItlUpperBound);
    let differs = (sample.mean - main.mean).abs() > WORTH_SHOWING * main.mean;
    (bound || differs).then_some(sample)
}
