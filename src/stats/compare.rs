//! A variant set beside the first one, phase by phase, paired by block.
//!
//! Says how large a ratio is and how well it is known. Never declares a winner: whether 3 % faster
//! is better is the reader's to judge. With fewer than three pairs there is no interval, and the
//! only verdict is that there are too few trials.

use crate::ids::Name;
use crate::stats::cell::Cell;
use crate::stats::interval::{Interval, half_width};
use crate::stats::marks;
use crate::stats::metric::Metric;
use crate::stats::phase::PhaseTrial;
use crate::stats::quantile::mean;
use serde::{Deserialize, Serialize};

/// Pairs needed for an interval.
pub(crate) const MIN_PAIRS: usize = 3;

/// What is compared: one figure of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    SteadyOutputTokensPerS,
    TtftP50,
    TpotP50,
    E2elP50,
}

impl Figure {
    const ALL: [Self; 4] =
        [Self::SteadyOutputTokensPerS, Self::TtftP50, Self::TpotP50, Self::E2elP50];

    fn of(self, trial: &PhaseTrial) -> Option<f64> {
        let p50 = |metric| trial.latency.get(&metric).and_then(|sample| sample.p50);
        match self {
            Self::SteadyOutputTokensPerS => {
                trial.steady.as_ref().and_then(|window| window.output_tokens_per_s)
            }
            Self::TtftP50 => p50(Metric::Ttft),
            Self::TpotP50 => p50(Metric::Tpot),
            Self::E2elP50 => p50(Metric::E2el),
        }
    }
}

/// What the ratios allow to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// In one of the trials the client may have been the limit.
    ClientLimited,
    TooFewTrials,
    /// The interval holds 1.
    NoDifferenceShown,
    /// The interval, on its own, does not hold 1.
    Differs,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) phase: Name,
    pub(crate) figure: Figure,
    pub(crate) variant: Name,
    /// What it is divided by.
    pub(crate) baseline: Name,
    pub(crate) blocks: Vec<BlockRatio>,
    /// Geometric mean; absent with fewer than three pairs.
    pub(crate) ratio: Option<f64>,
    pub(crate) ci95: Option<Interval>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BlockRatio {
    pub(crate) block: u32,
    pub(crate) ratio: f64,
}

/// Every variant but the first against the first.
pub(crate) fn ratios(cells: &[Cell]) -> Vec<Ratio> {
    let Some(first) = cells.first() else { return Vec::new() };
    let mut all = Vec::new();
    for cell in cells.iter().filter(|cell| cell.variant != first.variant) {
        let baseline = cells.iter().find(|other| other.is(&first.variant, &cell.phase));
        let Some(baseline) = baseline else { continue };
        all.extend(Figure::ALL.into_iter().filter_map(|figure| ratio(figure, cell, baseline)));
    }
    all
}

/// `None` where no block has both.
fn ratio(figure: Figure, cell: &Cell, baseline: &Cell) -> Option<Ratio> {
    let value_in = |cell: &Cell, block: u32| {
        let trial = cell.trials.iter().find(|trial| trial.block == block)?;
        figure.of(trial).filter(|value| *value > 0.0)
    };
    let blocks: Vec<BlockRatio> = cell
        .trials
        .iter()
        .filter_map(|trial| {
            let ratio = value_in(cell, trial.block)? / value_in(baseline, trial.block)?;
            Some(BlockRatio { block: trial.block, ratio })
        })
        .collect();
    if blocks.is_empty() {
        return None;
    }
    let logs: Vec<f64> = blocks.iter().map(|block| block.ratio.ln()).collect();
    let enough = logs.len() >= MIN_PAIRS;
    let centre = mean(&logs).filter(|_| enough);
    let ci95 = centre.zip(half_width(&logs)).map(|(centre, half)| Interval {
        lower: (centre - half).exp(),
        upper: (centre + half).exp(),
    });
    Some(Ratio {
        phase: cell.phase.clone(),
        figure,
        variant: cell.variant.clone(),
        baseline: baseline.variant.clone(),
        blocks,
        ratio: centre.map(f64::exp),
        ci95,
        verdict: match ci95 {
            _ if is_limited(cell) || is_limited(baseline) => Verdict::ClientLimited,
            None => Verdict::TooFewTrials,
            Some(ci) if ci.lower <= 1.0 && 1.0 <= ci.upper => Verdict::NoDifferenceShown,
            Some(_) => Verdict::Differs,
        },
    })
}

fn is_limited(cell: &Cell) -> bool {
    cell.trials.iter().any(|trial| marks::is_client_limited(trial.censoring))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::data::{PhaseData, PhasePlan};
    use crate::stats::fixture::{facts, ms, record};

    fn cell(variant: &str, e2el_ms: &[(u32, i64)]) -> Cell {
        let trials = e2el_ms.iter().map(|(block, e2el)| {
            let facts = facts("p", 1, [0, 0, 1000, 1000]);
            let records = vec![record(0, ms(0), &[100, *e2el], 2); 5];
            PhaseTrial::of(*block, 1, &PhaseData::new(facts, records))
        });
        let phase = PhasePlan {
            name: Name::new("p").unwrap(),
            users: 1,
            min_requests: 5,
            min_duration_s: 1.0,
            open: None,
        };
        Cell::of(&Name::new(variant).unwrap(), &phase, 3, trials.collect())
    }

    #[track_caller]
    fn check(other: &[(u32, i64)], blocks: &[(u32, f64)], verdict: Verdict) -> Ratio {
        let first = cell("a", &[(1, 200), (2, 400), (3, 500)]);
        let all = ratios(&[first, cell("b", other)]);
        let got = all.into_iter().find(|ratio| ratio.figure == Figure::E2elP50).unwrap();
        let pairs: Vec<_> = got.blocks.iter().map(|block| (block.block, block.ratio)).collect();
        assert_eq!(pairs, blocks);
        assert_eq!(got.verdict, verdict);
        got
    }

    #[test]
    fn pairs_are_of_one_block() {
        let got =
            check(&[(2, 200), (3, 250), (4, 9)], &[(2, 0.5), (3, 0.5)], Verdict::TooFewTrials);
        assert_eq!((got.ratio, got.ci95), (None, None));
    }

    #[test]
    fn three_pairs_give_an_interval() {
        let twice = [(1, 2.0), (2, 2.0), (3, 2.0)];
        let got = check(&[(1, 400), (2, 800), (3, 1000)], &twice, Verdict::Differs);
        assert!((got.ratio.unwrap() - 2.0).abs() < 1e-12);
        let around_one = [(1, 1.25), (2, 1.0), (3, 0.8)];
        check(&[(1, 250), (2, 400), (3, 400)], &around_one, Verdict::NoDifferenceShown);
    }

    #[test]
    fn a_limited_client_is_never_compared_in_silence() {
        let mut limited = cell("b", &[(1, 400), (2, 800), (3, 1000)]);
        limited.trials[0].censoring.first_texts = 1; // of 5
        let all = ratios(&[cell("a", &[(1, 200), (2, 400), (3, 500)]), limited]);
        assert!(all.iter().all(|ratio| ratio.verdict == Verdict::ClientLimited));
        assert!(!all.is_empty());
    }

    #[test]
    fn a_variant_without_pairs_has_no_ratio() {
        assert_eq!(ratios(&[cell("a", &[(1, 200)]), cell("b", &[(2, 200)])]), []);
        assert_eq!(ratios(&[]), []);
    }
}
