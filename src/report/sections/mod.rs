//! The sections of a report: one file each, and one line in `SECTIONS`.

mod classes;
pub(crate) mod client;
mod compare;
mod dataset;
mod definitions;
mod engine;
mod failures;
mod gpu;
mod hardware;
pub(crate) mod headline;
mod host;
mod inside;
mod latency;
mod really;
mod reproduction;
mod requests;
pub(crate) mod saturation;
mod smoke;
mod speed;
mod status;
mod throughput;
mod tokens;
mod trials;
mod validity;
mod windows;

use crate::ids::Name;
use crate::report::block::Block;
use crate::stats::cell::Cell;
use crate::stats::quantile::{Distribution, Percentile};
use crate::stats::summary::Summary;
use crate::sweep::smoke::SMOKE_BLOCK;

pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// No blocks: the section is left out.
    pub(crate) render: fn(&Summary) -> Vec<Block>,
}

/// In reading order: what came out, what went wrong, what to trust, then the detail.
pub(crate) const SECTIONS: &[Section] = &[
    Section { title: "Status", render: status::blocks },
    Section { title: "Headline", render: headline::blocks },
    Section { title: "Saturation", render: saturation::blocks },
    Section { title: "What failed", render: failures::blocks },
    Section { title: "What limits these figures", render: validity::blocks },
    Section { title: "Side by side", render: compare::blocks },
    Section { title: "Throughput", render: throughput::blocks },
    Section { title: "Windows", render: windows::blocks },
    Section { title: "Latency", render: latency::blocks },
    Section { title: "Classes of requests", render: classes::blocks },
    Section { title: "Speed for one user", render: speed::blocks },
    Section { title: "Against the hardware", render: hardware::blocks },
    Section { title: "GPU and energy", render: gpu::blocks },
    Section { title: "Trial by trial", render: trials::blocks },
    Section { title: "Requests by class", render: requests::blocks },
    Section { title: "Tokens", render: tokens::blocks },
    Section { title: "Data set", render: dataset::blocks },
    Section { title: "What really ran", render: really::blocks },
    Section { title: "Inside the engines", render: inside::blocks },
    Section { title: "Smoke launches", render: smoke::blocks },
    Section { title: "Engines", render: engine::blocks },
    Section { title: "Cost of the load generator", render: client::blocks },
    Section { title: "The machine meanwhile", render: host::blocks },
    Section { title: "Definitions", render: definitions::blocks },
    Section { title: "To reproduce this", render: reproduction::blocks },
];

/// A variant's name as every table shows it.
pub(crate) fn label(summary: &Summary, variant: &Name) -> String {
    match summary.variant(variant) {
        Some(variant) if variant.facts.simulated => format!("{} (simulated)", variant.facts.name),
        _ => variant.to_string(),
    }
}

/// Why percentiles are missing from a table of these samples; `None` if none is.
pub(crate) fn floor_note<'a>(
    samples: impl Iterator<Item = Option<&'a Distribution>> + Clone,
    shown: &[Percentile],
) -> Option<Block> {
    let missing = |percentile: &Percentile| {
        let lacks = |sample: &Distribution| sample.percentile(*percentile).is_none();
        samples.clone().flatten().any(lacks)
    };
    let needs: Vec<String> = shown
        .iter()
        .filter(|percentile| missing(percentile))
        .map(|percentile| format!("{} needs {}", percentile.name(), percentile.floor()))
        .collect();
    let note = format!("A dash: too small a sample; {}.", needs.join(", "));
    (!needs.is_empty()).then_some(Block::Text(note))
}

/// Cells with anything to show.
pub(crate) fn measured(summary: &Summary) -> impl Iterator<Item = &Cell> + Clone {
    summary.cells.iter().filter(|cell| cell.trials_measured > 0)
}

/// Blocks by number: `block 2`, `blocks 1, 2`.
pub(crate) fn block_list(blocks: &[u32]) -> String {
    if blocks == [SMOKE_BLOCK] {
        return "smoke launch".to_owned();
    }
    let numbers: Vec<String> = blocks.iter().map(u32::to_string).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("block{plural} {}", numbers.join(", "))
}
