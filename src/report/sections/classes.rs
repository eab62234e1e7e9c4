//! Classes of requests: how many kept to their limits, and how long each class took.

use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::{floor_note, label, measured};
use crate::report::table::{Entry, Table};
use crate::stats::cell::Cell;
use crate::stats::group::{Group, GroupKey};
use crate::stats::metric::Metric;
use crate::stats::quantile::{Distribution, Percentile};
use crate::stats::summary::Summary;

const EXPLAINED: &str = "Met: requests that came whole within every limit of their class; failed ones are among the sent and met none, and a \
     request of one token has no TPOT to miss. Goodput: met requests a second, of the whole phase, ramp and drain included, \
     over trials. Latencies count from sending, over the requests of all trials.";

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let titles =
        ["phase", "variant", "class", "limits", "sent", "ok", "met", "met share", "goodput /s"];
    let mut counts = Table::new(titles);
    let mut times = Table::new([
        "phase", "variant", "class", "metric", "n", "mean", "p50", "p90", "p95", "p99", "max",
    ]);
    let mut samples: Vec<&Distribution> = Vec::new();
    for cell in measured(summary) {
        for (name, group) in classes(cell) {
            let own: [Entry; 3] =
                [cell.phase.as_str().into(), label(summary, &cell.variant).into(), name.into()];
            let figures: [Entry; 6] = [
                group.what.clone().into(),
                group.sent.into(),
                group.ok.into(),
                group.met.unwrap_or(0).into(),
                percent(group.met_share).into(),
                group.goodput_per_s.into(),
            ];
            counts.row(own.iter().cloned().chain(figures).collect());
            for metric in [Metric::Ttft, Metric::Tpot, Metric::E2el] {
                let Some(sample) = group.latency.get(&metric) else { continue };
                samples.push(sample);
                times.row(own.iter().cloned().chain(latency(metric.title(), sample)).collect());
            }
        }
    }
    if counts.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Table(counts), Block::text(EXPLAINED)];
    if !times.is_empty() {
        blocks.push(Block::subheading("Latencies of each class, ms"));
        blocks.push(Block::Table(times));
        let shown = [Percentile::P50, Percentile::P90, Percentile::P95, Percentile::P99];
        blocks.extend(floor_note(samples.iter().map(|sample| Some(*sample)), &shown));
    }
    blocks
}

fn classes(cell: &Cell) -> impl Iterator<Item = (&str, &Group)> {
    cell.groups.iter().filter_map(|group| match &group.key {
        GroupKey::Class(name) => Some((name.as_str(), group)),
        GroupKey::Stage(_) => None,
    })
}

fn latency(title: &str, sample: &Distribution) -> [Entry; 8] {
    [
        title.into(),
        sample.n.into(),
        Some(sample.mean).into(),
        sample.p50.into(),
        sample.p90.into(),
        sample.p95.into(),
        sample.p99.into(),
        Some(sample.max).into(),
    ]
}
