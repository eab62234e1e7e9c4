//! How each phase divides into ramp, settling, steady part and drain.

use crate::report::block::Block;
use crate::report::sections::{label, measured};
use crate::report::table::Table;
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
    vec![
        Block::Table(table),
        Block::text(
            "Means over trials. Ramp: until every user had a request under way. Settling: what MSER-5 cuts off the start, \
             by the requests' end-to-end latency; fewer than 50 requests say nothing. Steady: until sending stopped. \
             Drain: until the last stream ended.",
        ),
    ]
}
