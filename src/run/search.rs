//! A search for the load that a variant bears: what was asked, what was run, how it ended. Data.

use crate::ids::Name;
use crate::run::outcome::FailureKind;
use crate::run::phase::PhaseEnd;
use crate::run::slo::Slo;
use serde::{Deserialize, Serialize};

/// How to search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Search {
    /// Users of the levels that are tried first, ascending.
    pub(crate) points: Vec<u32>,
    /// What a level must keep to: 99 of 100 requests within each limit that is there.
    pub(crate) slo: Slo,
    /// The share of requests that may fail.
    pub(crate) error_budget: f64,
    /// How near the edge is narrowed down, as a share of it.
    pub(crate) tolerance: f64,
    /// Runs of a level at the edge.
    pub(crate) repeats: u32,
    /// Runs in all, at most.
    pub(crate) max_runs: u32,
}

impl Search {
    /// Runs that a search like this usually takes: half of its points, narrowing down, repeats.
    pub(crate) fn usual_runs(&self) -> u32 {
        let points = u32::try_from(self.points.len()).unwrap_or(u32::MAX);
        // From neighbours a factor of 1.5 apart to within the tolerance.
        let halvings = (0.5 / self.tolerance).log2().ceil().clamp(0.0, 30.0);
        let halvings = (0..30).filter(|n| f64::from(*n) < halvings).count();
        let edge = u32::try_from(halvings).unwrap_or(0) + 2 * (self.repeats - 1);
        (points.div_ceil(2) + 1 + edge).min(self.max_runs)
    }

    /// In words, for a report.
    pub(crate) fn describe(&self) -> String {
        let limit =
            |name: &str, ms: Option<f64>| ms.map(|ms| format!("{name} p99 at most {ms} ms"));
        let limits: Vec<String> = limit("TTFT", self.slo.ttft_ms)
            .into_iter()
            .chain(limit("TPOT", self.slo.tpot_ms))
            .chain([format!("at most {} % failed", (self.error_budget * 1e4).round() / 1e2)])
            .collect();
        let points: Vec<String> = self.points.iter().map(u32::to_string).collect();
        format!("search from {} users; {}", points.join(", "), limits.join(", "))
    }
}

/// One run of a level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SearchRun {
    pub(crate) users: u32,
    /// Under which its records are kept.
    pub(crate) phase: Name,
    pub(crate) end: PhaseEnd,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// Requests over a limit; those that failed are over both.
    pub(crate) over_ttft: u64,
    pub(crate) over_tpot: u64,
    pub(crate) ttft_p99_ms: Option<f64>,
    pub(crate) tpot_p99_ms: Option<f64>,
    /// Of the steady window, or of the whole where there is none.
    pub(crate) output_tokens_per_s: Option<f64>,
}

/// Why a search ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub(crate) enum SearchEnd {
    /// The edge is known within the tolerance.
    Found,
    /// The highest point still kept to the limits.
    AllMet,
    /// Not even the lightest load kept to the limits.
    NoneMet,
    RunsUsedUp,
    /// The engine failed under this load; that is the result.
    Failed {
        users: u32,
        kind: FailureKind,
        summary: String,
    },
    /// The attempt ended for another reason.
    BrokenOff,
}

/// One search in one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SearchOutcome {
    pub(crate) search: Name,
    pub(crate) runs: Vec<SearchRun>,
    pub(crate) end: SearchEnd,
}

/// The name of a level's run: `saturation-300`, and `saturation-300-r2` for its second.
pub(crate) fn level_name(search: &Name, users: u32, nth: u32) -> Option<Name> {
    let again = if nth > 1 { format!("-r{nth}") } else { String::new() };
    Name::new(&format!("{search}-{users}{again}"))
}

/// The users of a run of this search, by its name.
pub(crate) fn level_of(search: &Name, run: &Name) -> Option<u32> {
    let level = run.as_str().strip_prefix(search.as_str())?.strip_prefix('-')?;
    let (users, again) = level.split_once("-r").unwrap_or((level, "1"));
    again.parse::<u32>().ok().and_then(|_| users.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_its_name() {
        let search = Name::new("sat").unwrap();
        for (users, nth, name) in [(300, 1, "sat-300"), (300, 2, "sat-300-r2")] {
            let run = level_name(&search, users, nth).unwrap();
            assert_eq!(run.as_str(), name);
            assert_eq!(level_of(&search, &run), Some(users));
        }
        for other in ["sat", "sat-", "sat-x", "satin-300", "sat-300-rx", "10-users"] {
            assert_eq!(level_of(&search, &Name::new(other).unwrap_or_else(Name::warmup)), None);
        }
    }

    #[test]
    fn the_usual_runs_stay_within_the_most() {
        let search = Search {
            points: vec![200, 300, 500, 750, 1000, 1500, 2000],
            slo: Slo::default(),
            error_budget: 0.01,
            tolerance: 0.05,
            repeats: 2,
            max_runs: 24,
        };
        assert_eq!(search.usual_runs(), 4 + 1 + 4 + 2);
        assert_eq!(Search { max_runs: 3, ..search }.usual_runs(), 3);
    }
}
