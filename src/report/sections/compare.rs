//! Variants set beside the first one, paired by block. Says no more than the trials allow.

use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::stats::compare::{Figure, MIN_PAIRS, Ratio, Verdict};
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let Some(first) = summary.ratios.first() else { return Vec::new() };
    let mut table = Table::new([
        "phase",
        "figure",
        "variant",
        "ratio in each block",
        "ratio (95 %)",
        "reading",
    ]);
    for ratio in &summary.ratios {
        table.row(vec![
            ratio.phase.as_str().into(),
            figure(ratio.figure).into(),
            label(summary, &ratio.variant).into(),
            in_blocks(ratio).into(),
            interval(ratio).into(),
            reading(ratio.verdict).into(),
        ]);
    }
    let baseline = label(summary, &first.baseline);
    vec![
        Block::Text(format!(
            "Each figure divided by that of {baseline} in the same block: above 1 is more tok/s, or more ms. \
             An interval needs {MIN_PAIRS} blocks in which both were measured. Intervals stand each on its own: among \
             twenty, one misses by chance."
        )),
        Block::Table(table),
    ]
}

fn figure(figure: Figure) -> &'static str {
    match figure {
        Figure::SteadyOutputTokensPerS => "output tok/s, steady",
        Figure::TtftP50 => "TTFT p50",
        Figure::TpotP50 => "TPOT p50",
        Figure::E2elP50 => "E2EL p50",
    }
}

fn in_blocks(ratio: &Ratio) -> String {
    let blocks: Vec<String> =
        ratio.blocks.iter().map(|block| format!("{}: {:.3}", block.block, block.ratio)).collect();
    blocks.join(", ")
}

fn interval(ratio: &Ratio) -> String {
    match (ratio.ratio, ratio.ci95) {
        (Some(ratio), Some(ci)) => format!("{ratio:.3} ({:.3} to {:.3})", ci.lower, ci.upper),
        _ => crate::report::figure::ABSENT.to_owned(),
    }
}

fn reading(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::ClientLimited => "client_limited: do not compare",
        Verdict::TooFewTrials => "too few trials to say",
        Verdict::NoDifferenceShown => "no difference shown",
        Verdict::Differs => "the interval excludes 1",
    }
}
