//! Every request that was sent, by how it ended, and what the failed ones said.

use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::{Entry, Table};
use crate::run::record::RequestOutcome;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let cells = || summary.cells.iter().filter(|cell| cell.requests.sent + cell.requests.lost > 0);
    let seen = |class: &RequestOutcome| {
        cells().any(|cell| cell.requests.failed_by_class.contains_key(class))
    };
    let classes: Vec<RequestOutcome> = RequestOutcome::ALL.into_iter().filter(seen).collect();
    let titles = ["phase", "variant", "sent", "ok", "failed"];
    let mut table = Table::new(titles.into_iter().chain(classes.iter().map(|class| class.name())));
    let mut errors = Table::new(["phase", "variant", "class", "count", "status", "what was said"]);
    for cell in cells() {
        let requests = &cell.requests;
        let own: [Entry; 2] = [cell.phase.as_str().into(), label(summary, &cell.variant).into()];
        let counts = [requests.sent, requests.ok, requests.failed].into_iter();
        let by_class =
            classes.iter().map(|class| requests.failed_by_class.get(class).copied().unwrap_or(0));
        let numbers = counts.chain(by_class).map(Entry::Count);
        table.row(own.iter().cloned().chain(numbers).collect());
        for error in &requests.errors {
            let status = error.http_status.map_or_else(String::new, |status| status.to_string());
            let said: [Entry; 4] = [
                error.class.name().into(),
                error.count.into(),
                status.into(),
                shortened(error.error.as_deref().unwrap_or("")).into(),
            ];
            errors.row(own.iter().cloned().chain(said).collect());
        }
    }
    if table.is_empty() {
        return Vec::new();
    }
    let balance = if summary.cells.iter().all(|cell| cell.requests.adds_up()) {
        "In every row sent = ok + failed, and failed is the sum of its classes. Trials that broke off are included."
    } else {
        "WARNING: in some rows sent is not ok + failed. This is a fault of sweepd; do not trust these counts."
    };
    let mut blocks = vec![Block::Table(table), Block::text(balance)];
    if !errors.is_empty() {
        blocks.push(Block::subheading("What the failed requests said, the commonest first"));
        blocks.push(Block::Table(errors));
    }
    blocks
}

fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("…".chars()).collect()
}
