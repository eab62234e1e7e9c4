//! How much of a data set each phase used, what it left out and why, and what it asked again.

use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::stats::dataset::DatasetUse;
use crate::stats::summary::Summary;
use crate::workload::dataset::described;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let titles = [
        "phase",
        "variant",
        "block",
        "own entries",
        "looked at",
        "fit",
        "begun",
        "again",
        "left out",
    ];
    let mut table = Table::new(titles);
    for cell in &summary.cells {
        for trial in &cell.trials {
            let Some(DatasetUse { part, begun, repeated }) = &trial.dataset else { continue };
            table.row(vec![
                cell.phase.as_str().into(),
                label(summary, &cell.variant).into(),
                u64::from(trial.block).into(),
                u64::from(part.entries).into(),
                u64::from(part.looked_at).into(),
                u64::from(part.fitting).into(),
                (*begun).into(),
                (*repeated).into(),
                described(&part.left_out).into(),
            ]);
        }
    }
    if table.is_empty() {
        return Vec::new();
    }
    let set = summary.setup.workload.clone().unwrap_or_default();
    vec![
        Block::text(format!("{set}.")),
        Block::Table(table),
        Block::text(
            "Each phase has entries of its own, drawn by the seed and the same for every variant; entries are looked at in \
             that order, some ahead of their turn, and those that do not fit are left out for the reason given. Begun: \
             conversations, or single messages where only those are asked. Again: of entries that had been begun before in \
             the phase, because its own were used up.",
        ),
    ]
}
