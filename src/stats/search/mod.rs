//! The search for the load that a variant bears: which level comes next, and what it found. Pure.
//!
//! Up the points until one misses its limits, then between the highest level that met them and the
//! lowest that did not, by the geometric mean, until both are close; those two are run again. A
//! level that cannot be told is run again, up to the repeats, and then counts as not met. Around the
//! knee levels are added until its neighbours are near.
//!
//! The knee is Kleinrock's: the level with the most throughput for its latency. In a closed loop of
//! N users the latency is N / throughput, so it is where throughput squared over users is largest.
//!
//! Invariant: a search ends after `max_runs` runs at the latest, and what comes next depends on
//! what was run, and on nothing else.

mod standing;
mod summary;

pub(crate) use standing::Standing;
pub(crate) use summary::{SearchSummary, TrialSearch, summarise};

use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::run::search::{Search, SearchEnd, SearchRun};
use crate::run::slo::Slo;
use crate::stats::goodput;
use crate::stats::metric;
use crate::stats::quantile::{Distribution, mean};
use crate::stats::request::RequestMetrics;
use crate::stats::window;
use std::collections::BTreeMap;

/// The knee's neighbours are this near, as a ratio of users.
const KNEE_RATIO: f64 = 1.7;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Run { users: u32 },
    End(SearchEnd),
}

/// All runs of one level.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Level {
    runs: u32,
    standing: Standing,
    /// Mean over runs.
    output_tokens_per_s: Option<f64>,
}

fn levels(search: &Search, runs: &[SearchRun]) -> BTreeMap<u32, Level> {
    let mut levels = BTreeMap::new();
    for users in runs.iter().map(|run| run.users) {
        let own = runs.iter().filter(move |run| run.users == users);
        let rates: Vec<f64> = own.clone().filter_map(|run| run.output_tokens_per_s).collect();
        let level = Level {
            runs: u32::try_from(own.clone().count()).unwrap_or(u32::MAX),
            standing: standing::of_level(search, own),
            output_tokens_per_s: mean(&rates),
        };
        levels.insert(users, level);
    }
    levels
}

/// What a search has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    /// Keeps to the limits, with 95 % confidence, and so does nothing above it.
    pub(crate) met: Option<u32>,
    /// The lightest load that does not, or of which it cannot be told.
    pub(crate) missed: Option<u32>,
    pub(crate) knee: Option<u32>,
}

pub(crate) fn edge(search: &Search, runs: &[SearchRun]) -> Edge {
    edge_of(&levels(search, runs))
}

fn edge_of(levels: &BTreeMap<u32, Level>) -> Edge {
    let missed = levels.iter().find(|(_, level)| level.standing != Standing::Met).map(|(n, _)| *n);
    let below = levels.range(..missed.unwrap_or(u32::MAX));
    Edge { met: below.map(|(users, _)| *users).next_back(), missed, knee: knee(levels) }
}

fn power(users: u32, level: &Level) -> Option<f64> {
    level.output_tokens_per_s.map(|rate| rate * rate / f64::from(users))
}

fn knee(levels: &BTreeMap<u32, Level>) -> Option<u32> {
    let all = levels.iter().filter_map(|(users, level)| Some((*users, power(*users, level)?)));
    all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(users, _)| users)
}

/// What to run next.
pub(crate) fn next(search: &Search, runs: &[SearchRun]) -> Next {
    let levels = levels(search, runs);
    if u32::try_from(runs.len()).unwrap_or(u32::MAX) >= search.max_runs {
        return Next::End(SearchEnd::RunsUsedUp);
    }
    let edge = edge_of(&levels);
    let runs_of = |users: u32| levels.get(&users).map_or(0, |level| level.runs);
    let again = |users: Option<u32>| users.filter(|users| runs_of(*users) < search.repeats);
    let unclear = edge
        .missed
        .filter(|users| levels.get(users).is_some_and(|level| level.standing == Standing::Unclear));
    if let Some(users) = again(unclear) {
        return Next::Run { users };
    }
    let end = match (edge.met, edge.missed) {
        (_, None) => match search.points.iter().find(|point| !levels.contains_key(*point)) {
            Some(point) => return Next::Run { users: *point },
            None => SearchEnd::AllMet,
        },
        (None, Some(1)) => SearchEnd::NoneMet,
        (None, Some(missed)) => return Next::Run { users: missed / 2 },
        (Some(met), Some(missed)) => match between(met, missed, search.tolerance) {
            Some(users) => return Next::Run { users },
            None => match again(Some(met)).or_else(|| again(Some(missed))) {
                Some(users) => return Next::Run { users },
                None => SearchEnd::Found,
            },
        },
    };
    match near_knee(&levels, edge.knee) {
        Some(users) => Next::Run { users },
        None => Next::End(end),
    }
}

/// The middle of two levels, as long as they are further apart than the tolerance.
fn between(met: u32, missed: u32, tolerance: f64) -> Option<u32> {
    let wide = f64::from(missed - met) > (tolerance * f64::from(met)).max(1.0);
    wide.then(|| middle(met, missed)).flatten()
}

/// The geometric mean, if a whole number of users lies between.
fn middle(low: u32, high: u32) -> Option<u32> {
    let middle = u64::from(low) * u64::from(high);
    let middle = u32::try_from(middle.isqrt()).ok()?.max(low + 1);
    (middle < high).then_some(middle)
}

/// A level that would tell more of where the knee is.
fn near_knee(levels: &BTreeMap<u32, Level>, knee: Option<u32>) -> Option<u32> {
    let knee = knee?;
    let far = |low: u32, high: u32| f64::from(high) > KNEE_RATIO * f64::from(low);
    match levels.range(..knee).next_back() {
        Some((below, _)) if far(*below, knee) => return middle(*below, knee),
        Some(_) => {}
        // It may lie below all that was run.
        None if knee > 1 => return Some(knee / 2),
        None => {}
    }
    let (above, _) = levels.range(knee + 1..).next()?;
    if far(knee, *above) { middle(knee, *above) } else { None }
}

/// A run's counts and figures.
pub(crate) fn run_of(
    slo: Slo,
    users: u32,
    facts: &PhaseFacts,
    records: &[RequestRecord],
) -> SearchRun {
    let metrics: Vec<RequestMetrics> = records.iter().filter_map(RequestMetrics::of).collect();
    let sent = u64::try_from(records.len()).unwrap_or(u64::MAX);
    let failed = u64::try_from(records.len() - metrics.len()).unwrap_or(u64::MAX);
    let over = |limit: Option<f64>, pick: fn(&RequestMetrics) -> Option<f64>| {
        let over = metrics.iter().filter(|metrics| goodput::is_over(limit, pick(metrics)));
        failed + u64::try_from(over.count()).unwrap_or(u64::MAX)
    };
    let p99 = |pick: fn(&RequestMetrics) -> Option<f64>| {
        let mut values: Vec<f64> = metrics.iter().filter_map(pick).collect();
        Distribution::of(&mut values).and_then(|sample| sample.p99)
    };
    let window = window::steady(facts, records).or_else(|| window::whole(facts, records));
    SearchRun {
        users,
        phase: facts.phase.clone(),
        end: facts.end,
        sent,
        failed,
        over_ttft: over(slo.ttft_ms, |metrics| metrics.ttft_ms),
        over_tpot: over(slo.tpot_ms, |metrics| metrics.tpot_ms),
        ttft_p99_ms: p99(|metrics| metrics.ttft_ms),
        tpot_p99_ms: p99(|metrics| metrics.tpot_ms),
        output_tokens_per_s: window.and_then(|window| window.output_tokens_per_s),
    }
}

/// Of all that was sent.
pub(crate) fn failed_share(run: &SearchRun) -> Option<f64> {
    metric::share(run.failed, run.sent)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
