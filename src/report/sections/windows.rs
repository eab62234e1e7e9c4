//! How each phase divides into ramp, settling, steady part and drain.

use crate::report::block::Block;
use crate::report::sections::{label, measured};
use crate::report::table::Table;
use crate::stats::group::GroupKey;
use crate::stats::metric::Metric;
use crate::stats::quantile::mean;
use crate::stats::settle::Parts;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let titles = ["phase", "variant", "ramp s", "settling s", "steady s", "drain s", "settled"];
    let mut table = Table::new(titles);
    for cell in measured(summary) {
        let parts: Vec<Parts> = cell.trials.iter().filter_map(|trial| trial.parts).collect();
        let over = |pick: fn(&Parts) -> f64| mean(&parts.iter().map(pick).collect::<Vec<_>>());
        let count = |is: Option<bool>| parts.iter().filter(|parts| parts.settled == is).count();
        let settled = match (count(Some(true)), count(Some(false)), count(None)) {
            (0, 0, _) => "too few requests to say".to_owned(),
            (yes, no, _) => format!("{yes} of {}", yes + no),
        };
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            over(|parts| parts.ramp_s).into(),
            over(|parts| parts.settling_s).into(),
            over(|parts| parts.steady_s).into(),
            over(|parts| parts.drain_s).into(),
            settled.into(),
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![
        Block::Table(table),
        Block::text(
            "Means over trials. Ramp: until every user had a request under way; of an open loop, until as many were in flight \
             as on average in the second half. Settling: until latencies had settled, by \
             MSER-5 over the requests; fewer than 50 say nothing. Steady: from then until sending stopped. Drain: until \
             the last stream ended. Throughput of the steady window holds settling and steady part: a stall at the start \
             must not vanish; where settling is long, give a longer warm-up.",
        ),
    ];
    let stages = stages(summary);
    if !stages.is_empty() {
        blocks.push(Block::subheading("Stages of open loops"));
        blocks.push(Block::Table(stages));
        blocks.push(Block::text(
            "Requests that were due in each stage; sent /s is over trials, latencies are over their requests. The steady \
             window of such a phase lies in its longest stage at one rate; one that only ramps has none.",
        ));
    }
    blocks
}

fn stages(summary: &Summary) -> Table {
    let titles = [
        "phase",
        "variant",
        "stage: requests/s",
        "sent",
        "ok",
        "sent /s",
        "TTFT p50",
        "TTFT p99",
        "E2EL p50",
        "E2EL p99",
    ];
    let mut table = Table::new(titles);
    for cell in measured(summary) {
        for group in cell.groups.iter().filter(|group| matches!(group.key, GroupKey::Stage(_))) {
            let sample = |metric| group.latency.get(&metric);
            let [ttft, e2el] = [sample(Metric::Ttft), sample(Metric::E2el)];
            table.row(vec![
                cell.phase.as_str().into(),
                label(summary, &cell.variant).into(),
                group.what.clone().into(),
                group.sent.into(),
                group.ok.into(),
                group.sent_per_s.into(),
                ttft.and_then(|sample| sample.p50).into(),
                ttft.and_then(|sample| sample.p99).into(),
                e2el.and_then(|sample| sample.p50).into(),
                e2el.and_then(|sample| sample.p99).into(),
            ]);
        }
    }
    table
}
