//! A search over all trials of a variant. Pure.

use super::{Standing, edge, failed_share, standing};
use crate::ids::Name;
use crate::run::search::{Search, SearchEnd, SearchOutcome, SearchRun};
use crate::stats::data::{RunData, TrialData};
use crate::stats::interval::OverTrials;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One search of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SearchSummary {
    pub(crate) variant: Name,
    pub(crate) search: Name,
    pub(crate) asked: Search,
    /// The most users that kept to the limits, over trials.
    pub(crate) met_users: Option<OverTrials>,
    pub(crate) trials: Vec<TrialSearch>,
    /// Ascending; the runs of all trials together.
    pub(crate) levels: Vec<LevelSummary>,
}

/// What it found in one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialSearch {
    pub(crate) block: u32,
    pub(crate) runs: u64,
    pub(crate) met_users: Option<u32>,
    pub(crate) missed_users: Option<u32>,
    pub(crate) knee_users: Option<u32>,
    pub(crate) end: SearchEnd,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LevelSummary {
    pub(crate) users: u32,
    pub(crate) runs: u64,
    pub(crate) sent: u64,
    pub(crate) standing: Standing,
    /// Of the worst run.
    pub(crate) ttft_p99_ms: Option<f64>,
    pub(crate) tpot_p99_ms: Option<f64>,
    pub(crate) failed_share: Option<f64>,
    pub(crate) output_tokens_per_s: Option<OverTrials>,
}

/// In the order of the sweep: by search, within it by variant.
pub(crate) fn summarise(run: &RunData) -> Vec<SearchSummary> {
    let of = |(name, asked): &(Name, Search), variant: &Name| {
        let own = run.trials.iter().filter(|trial| trial.outcome.trial.variant == *variant);
        let found: Vec<(u32, &SearchOutcome)> =
            own.filter_map(|trial| Some((trial.outcome.trial.block, last(trial, name)?))).collect();
        let trials: Vec<TrialSearch> =
            found.iter().map(|(block, outcome)| in_trial(*block, asked, outcome)).collect();
        let met: Vec<f64> = trials.iter().filter_map(|t| t.met_users.map(f64::from)).collect();
        let runs: Vec<&SearchRun> = found.iter().flat_map(|(_, found)| &found.runs).collect();
        SearchSummary {
            variant: variant.clone(),
            search: name.clone(),
            asked: asked.clone(),
            met_users: OverTrials::of(&met),
            levels: levels(asked, &runs),
            trials,
        }
    };
    let variants = || run.variants.iter().map(|variant| &variant.name);
    run.searches.iter().flat_map(|search| variants().map(move |name| of(search, name))).collect()
}

/// That of the last attempt which searched.
fn last<'a>(trial: &'a TrialData, search: &Name) -> Option<&'a SearchOutcome> {
    let mut all = trial.attempts.iter().flat_map(|attempt| &attempt.searches);
    all.rfind(|outcome| outcome.search == *search)
}

fn in_trial(block: u32, asked: &Search, outcome: &SearchOutcome) -> TrialSearch {
    let edge = edge(asked, &outcome.runs);
    let failed = match &outcome.end {
        SearchEnd::Failed { users, .. } => Some(*users),
        _ => None,
    };
    TrialSearch {
        block,
        runs: u64::try_from(outcome.runs.len()).unwrap_or(u64::MAX),
        met_users: edge.met.filter(|met| failed.is_none_or(|failed| *met < failed)),
        missed_users: edge.missed.into_iter().chain(failed).min(),
        knee_users: edge.knee,
        end: outcome.end.clone(),
    }
}

fn levels(asked: &Search, runs: &[&SearchRun]) -> Vec<LevelSummary> {
    let users: BTreeSet<u32> = runs.iter().map(|run| run.users).collect();
    let level = |users: u32| {
        let own = || runs.iter().copied().filter(move |run| run.users == users);
        let worst =
            |pick: fn(&SearchRun) -> Option<f64>| own().filter_map(pick).max_by(f64::total_cmp);
        let rates: Vec<f64> = own().filter_map(|run| run.output_tokens_per_s).collect();
        LevelSummary {
            users,
            runs: u64::try_from(own().count()).unwrap_or(u64::MAX),
            sent: own().map(|run| run.sent).sum(),
            standing: standing::of_level(asked, own()),
            ttft_p99_ms: worst(|run| run.ttft_p99_ms),
            tpot_p99_ms: worst(|run| run.tpot_p99_ms),
            failed_share: worst(failed_share),
            output_tokens_per_s: OverTrials::of(&rates),
        }
    };
    users.into_iter().map(level).collect()
}
