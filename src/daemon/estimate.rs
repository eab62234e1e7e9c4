//! How long what is planned still takes, from what has been seen of each variant. Pure.
//!
//! A variant's own trials say most. Before its first, its smoke launch tells what loading and tearing
//! down take, to which the phases' own durations are added. What nothing is known of is not guessed.
//! Where several run at once, a block takes as long as its fullest lane.

use crate::ids::{Name, TrialId};
use crate::sweep::def::PlannedTrial;
use crate::sweep::smoke::SMOKE_BLOCK;
use std::num::NonZeroU32;
use std::time::Duration;

/// A trial that was run to its end, and how long that took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) trial: TrialId,
    pub(crate) duration: Duration,
}

/// What the trials ahead take, `lanes` of them at once; `None` while nothing is known of one of them.
/// `least`: what the phases of one trial take at least.
pub(crate) fn left(
    ahead: &[PlannedTrial],
    took: &[Took],
    least: Duration,
    lanes: NonZeroU32,
) -> Option<Duration> {
    let each = ahead.iter().map(|trial| Some((trial.block, one(trial, took, least)?)));
    each.collect::<Option<Vec<_>>>().map(|each| together(each, lanes))
}

/// What these take that begin in this order, each with its block: the lane that is free first takes the
/// next, and a block begins when the one before it has ended.
pub(crate) fn together(
    trials: impl IntoIterator<Item = (u32, Duration)>,
    lanes: NonZeroU32,
) -> Duration {
    let count = usize::try_from(lanes.get()).unwrap_or(1);
    let mut whole = Duration::ZERO;
    let (mut block, mut busy) = (None, vec![Duration::ZERO; count]);
    let longest = |busy: &[Duration]| busy.iter().max().copied().unwrap_or_default();
    for (of_block, takes) in trials {
        if block.replace(of_block) != Some(of_block) {
            whole += longest(&busy);
            busy.fill(Duration::ZERO);
        }
        if let Some(first) = busy.iter_mut().min() {
            *first += takes;
        }
    }
    whole + longest(&busy)
}

/// What a trial of this variant takes.
pub(crate) fn one(trial: &PlannedTrial, took: &[Took], least: Duration) -> Option<Duration> {
    let smoke =
        mean(took, |seen| seen.trial.variant == trial.variant && seen.trial.block == SMOKE_BLOCK);
    if trial.block == SMOKE_BLOCK {
        return smoke.or_else(|| mean(took, |seen| seen.trial.block == SMOKE_BLOCK));
    }
    let own = |name: &Name| {
        mean(took, |seen| seen.trial.variant == *name && seen.trial.block != SMOKE_BLOCK)
    };
    own(&trial.variant)
        .or_else(|| smoke.map(|smoke| smoke + least))
        .or_else(|| mean(took, |seen| seen.trial.block != SMOKE_BLOCK))
}

fn mean(took: &[Took], is_like: impl Fn(&Took) -> bool) -> Option<Duration> {
    let alike: Vec<Duration> =
        took.iter().filter(|seen| is_like(seen)).map(|seen| seen.duration).collect();
    let count = u32::try_from(alike.len()).ok()?;
    alike.into_iter().sum::<Duration>().checked_div(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(block: u32, variant: &str) -> PlannedTrial {
        PlannedTrial { block, variant: Name::new(variant).unwrap() }
    }

    fn took(block: u32, variant: &str, seconds: u64) -> Took {
        Took { trial: trial(block, variant).id(), duration: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_variants_own_trials_come_first_then_its_smoke_launch_then_others() {
        let least = Duration::from_secs(100);
        let seen = [took(0, "a", 30), took(1, "a", 150), took(2, "a", 170), took(0, "b", 20)];
        let seconds = |trial: &PlannedTrial, seen: &[Took]| {
            one(trial, seen, least).map(|span| span.as_secs())
        };
        assert_eq!(seconds(&trial(3, "a"), &seen), Some(160));
        assert_eq!(seconds(&trial(1, "b"), &seen), Some(120));
        assert_eq!(seconds(&trial(1, "c"), &seen), Some(160));
        assert_eq!(seconds(&trial(0, "c"), &seen), Some(25));
        assert_eq!(seconds(&trial(1, "a"), &[]), None);
        let one_by_one =
            |ahead: &[PlannedTrial], seen: &[Took]| left(ahead, seen, least, NonZeroU32::MIN);
        let all = one_by_one(&[trial(3, "a"), trial(1, "b")], &seen);
        assert_eq!(all, Some(Duration::from_secs(280)));
        assert_eq!(one_by_one(&[trial(1, "a")], &[]), None);
        assert_eq!(one_by_one(&[], &[]), Some(Duration::ZERO));
    }

    #[test]
    fn side_by_side_a_block_takes_as_long_as_its_fullest_lane() {
        let takes = |lanes, trials: &[(u32, u64)]| {
            let each = trials.iter().map(|(block, took)| (*block, Duration::from_secs(*took)));
            together(each, NonZeroU32::new(lanes).unwrap()).as_secs()
        };
        let plan = [(1, 30), (1, 10), (1, 10), (2, 20), (2, 20), (2, 20)];
        assert_eq!(takes(1, &plan), 110);
        assert_eq!(takes(2, &plan), 30 + 40);
        assert_eq!(takes(3, &plan), 30 + 20);
        assert_eq!(takes(2, &[]), 0);
    }
}
