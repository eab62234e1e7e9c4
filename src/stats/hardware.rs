//! Measured cells held against what hardware and model allow.
//!
//! A cell stands here only if its variant's hardware and model shape are known. Nothing is removed
//! for being impossible: it gets a mark, the gravest there is.

use crate::ids::Name;
use crate::physics::roofline::{Against, Figure, Impossible, Machine, Measured};
use crate::stats::cell::Cell;
use crate::stats::data::RunData;
use crate::stats::marks::{Mark, MarkCode};
use crate::stats::metric::Metric;
use crate::units::count_f64;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CellAgainst {
    pub(crate) variant: Name,
    pub(crate) phase: Name,
    /// Of the steady window where there is one, of the whole phase otherwise.
    pub(crate) output_tokens_per_s: f64,
    pub(crate) min_tpot_ms: Option<f64>,
    pub(crate) min_ttft_ms: Option<f64>,
    #[serde(flatten)]
    pub(crate) against: Against,
}

pub(crate) fn against(run: &RunData, cells: &[Cell]) -> Vec<CellAgainst> {
    let against = |cell: &Cell| {
        let facts = run.variants.iter().find(|variant| variant.name == cell.variant)?;
        let (hardware, shape) =
            facts.machine.hardware.as_ref().zip(facts.machine.shape.as_ref())?;
        let measured = measured(cell)?;
        Some(CellAgainst {
            variant: cell.variant.clone(),
            phase: cell.phase.clone(),
            output_tokens_per_s: measured.output_tokens_per_s,
            min_tpot_ms: measured.min_tpot_ms,
            min_ttft_ms: measured.min_ttft_ms,
            against: Machine { hardware, shape }.against(&measured)?,
        })
    };
    cells.iter().filter_map(against).collect()
}

/// `None` where a figure is missing without which nothing can be said.
fn measured(cell: &Cell) -> Option<Measured> {
    let (steady, whole) = (cell.steady.output_tokens_per_s, cell.whole.output_tokens_per_s);
    let tokens = &cell.tokens;
    let counted = cell.requests.ok.checked_sub(tokens.usage_missing).filter(|n| *n > 0)?;
    let mean = |sum: u64| count_f64(sum) / count_f64(counted);
    let sample = |metric| cell.latency.get(&metric);
    Some(Measured {
        users: cell.users,
        isl: mean(tokens.prompt),
        osl: mean(tokens.output),
        cached: mean(tokens.cached.unwrap_or(0)),
        least_isl: count_f64(tokens.prompt_computed_least?),
        output_tokens_per_s: steady.or(whole)?.mean,
        most_tokens_per_s: steady.map_or(0.0, |s| s.max).max(whole.map_or(0.0, |w| w.max)),
        mean_tpot_ms: sample(Metric::Tpot).map(|tpot| tpot.mean),
        min_tpot_ms: sample(Metric::Tpot).map(|tpot| tpot.min),
        min_ttft_ms: sample(Metric::Ttft).map(|ttft| ttft.min),
    })
}

pub(crate) fn marks(cells: &[CellAgainst]) -> impl Iterator<Item = Mark> + '_ {
    cells.iter().flat_map(|cell| {
        cell.against.impossible.iter().map(|found| Mark {
            code: MarkCode::AboveRoofline,
            variant: Some(cell.variant.clone()),
            phase: Some(cell.phase.clone()),
            block: None,
            detail: detail(found),
        })
    })
}

fn detail(found: &Impossible) -> String {
    let Impossible { figure, measured, limit } = found;
    match figure {
        Figure::OutputTokensPerS => format!(
            "{measured:.0} output tok/s, but weights and KV cache cannot be read, nor prompts computed, for more \
             than {limit:.0}"
        ),
        Figure::TpotMs => {
            format!("a TPOT of {measured:.2} ms, but reading the weights once takes {limit:.2} ms")
        }
        Figure::ReadBytesPerS => format!(
            "decoding at this TPOT and rate reads {:.0} GB/s, but the memory gives {:.0}",
            measured / 1e9,
            limit / 1e9
        ),
        Figure::TtftMs => {
            format!("a TTFT of {measured:.1} ms, but no prefill is done in less than {limit:.1} ms")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{name, run, with_a_machine};
    use crate::stats::summary::summarise;

    #[test]
    fn without_hardware_or_shape_nothing_is_said() {
        assert!(summarise(&run()).against_hardware.is_empty());
        let mut data = with_a_machine(run(), 300.0);
        data.variants[0].machine.shape = None;
        data.variants[1].machine.hardware = None;
        assert!(summarise(&data).against_hardware.is_empty());
    }

    #[test]
    fn every_measured_cell_is_held_against_the_hardware() {
        let summary = summarise(&with_a_machine(run(), 20_000.0));
        assert_eq!(summary.against_hardware.len(), 4);
        let cell = &summary.against_hardware[0];
        assert_eq!((&cell.variant, &cell.phase), (&name("sim-a"), &name("10-users")));
        assert!(cell.against.roofline_share > 0.0 && cell.against.roofline_share < 1.0);
        assert!(!summary.marks.iter().any(|mark| mark.code == MarkCode::AboveRoofline));
    }

    /// A token every 9 ms, where reading the weights takes 50.
    #[test]
    fn what_cannot_be_is_the_first_mark() {
        let summary = summarise(&with_a_machine(run(), 300.0));
        assert_eq!(summary.marks[0].code, MarkCode::AboveRoofline);
        assert!(summary.marks.iter().any(|mark| mark.detail.contains("reading the weights")));
        let json = serde_json::to_value(&summary).unwrap();
        assert!(json["against_hardware"][0]["roofline_tokens_per_s"].is_f64(), "{json:#}");
    }
}
