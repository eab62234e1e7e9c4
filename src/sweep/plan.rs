//! The order of a sweep's trials, and the least time they take. Pure.

use super::def::{Pattern, Phase, PlannedTrial, Sweep};
use std::time::Duration;

/// Blocks in order. Within a block every variant once, in an order drawn from the seed: what
/// drifts over a night hits all variants alike.
pub(crate) fn plan(sweep: &Sweep) -> Vec<PlannedTrial> {
    let order = sweep.seed.branch("order");
    let block = |block: u32| {
        let mut variants: Vec<_> = sweep.variants.iter().map(|variant| &variant.name).collect();
        order.nth(u64::from(block)).stream().shuffle(&mut variants);
        variants
            .into_iter()
            .map(move |variant| PlannedTrial { block, variant: variant.clone() })
            .collect::<Vec<_>>()
    };
    (1..=sweep.blocks.get()).flat_map(block).collect()
}

/// The least that the phases take. Loading, warm-up and the requests' own time, which nobody
/// knows beforehand, come on top. Of a search, what its usual number of runs takes.
pub(crate) fn least_duration(sweep: &Sweep) -> Duration {
    let trial = least_trial(sweep);
    let variants = u32::try_from(sweep.variants.len()).unwrap_or(u32::MAX);
    let one_after_another = variants.div_ceil(sweep.lanes.count.get());
    trial.saturating_mul(one_after_another.saturating_mul(sweep.blocks.get()))
}

/// The least that the phases of one trial take.
pub(crate) fn least_trial(sweep: &Sweep) -> Duration {
    sweep.phases.iter().map(least_phase).sum()
}

/// Every user of a closed loop thinks between two of its requests; an open loop goes by the clock.
fn least_phase(phase: &Phase) -> Duration {
    match &phase.pattern {
        Pattern::Closed { think_time, ramp_up } => {
            let turns = phase.min_requests.div_ceil(phase.users.get());
            let thinking = think_time.saturating_mul(turns.saturating_sub(1));
            phase.min_duration.max(thinking).max(*ramp_up)
        }
        Pattern::Open(schedule) => schedule.expected().max(phase.min_duration),
        Pattern::Search(search) => phase.min_duration.saturating_mul(search.usual_runs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::parse::tests::{RIGHT, sweep};
    use std::collections::BTreeSet;

    fn order(text: &str) -> Vec<String> {
        let trials = plan(&sweep(text));
        trials.iter().map(|trial| format!("{}-{}", trial.block, trial.variant)).collect()
    }

    #[test]
    fn every_block_has_every_variant_once_in_an_order_of_its_own() {
        let text = RIGHT.replace("blocks = 2", "blocks = 40");
        let trials = plan(&sweep(&text));
        assert_eq!(trials.len(), 80);
        let mut orders = BTreeSet::new();
        for (index, block) in trials.chunks(2).enumerate() {
            assert!(block.iter().all(|trial| usize::try_from(trial.block) == Ok(index + 1)));
            let names: Vec<&str> = block.iter().map(|trial| trial.variant.as_str()).collect();
            assert_ne!(names[0], names[1]);
            orders.insert(names);
        }
        assert_eq!(orders.len(), 2, "both orders occur");
    }

    #[test]
    fn the_order_is_the_seeds_alone() {
        assert_eq!(order(RIGHT), order(RIGHT));
        let many = RIGHT.replace("blocks = 2", "blocks = 20");
        assert_ne!(order(&many), order(&many.replace("seed = 42", "seed = 43")));
        let other_load = many.replace("users = 10", "users = 11");
        assert_eq!(order(&many), order(&other_load));
    }

    #[test]
    fn the_least_duration_counts_phases_and_thinking() {
        // Two blocks of two variants; phases of 30 s and of 29 pauses of 2 s.
        assert_eq!(least_duration(&sweep(RIGHT)), Duration::from_secs(4 * (30 + 58)));
    }
}
