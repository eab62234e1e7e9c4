//! What searches found: the load that each variant bears, and what it breaks by.

use crate::ids::wire_name;
use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::run::search::SearchEnd;
use crate::stats::search::{SearchSummary, Standing, TrialSearch};
use crate::stats::summary::Summary;

const EXPLAINED: &str = "A level is within a limit if, by the exact binomial test, fewer than 1 % of its requests are over it with 95 % \
     confidence; failed requests are over every limit. It is outside if more than 1 % are with the same confidence; \
     else it is run again, and counts as outside in the end. The edge is given as the highest level within and the \
     lowest that is not. That confidence is of one launch: how far launches differ is told by the trials, and the \
     interval is over them. The mean of the users within the limits is over the trials that have such a level. Knee: \
     the level where throughput squared over users is largest, which is the most throughput for its latency. Level by \
     level: the requests of all runs of all trials together, throughput ± over runs, latencies and failures of the worst \
     run. A level at which the engine failed is named as what the trial broke by and has no row. Levels carry no marks: \
     neighbours and throttling are in their own files.";

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    if summary.searches.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Table(table(summary))];
    blocks.extend(asked(summary));
    blocks.push(Block::text(EXPLAINED));
    for search in summary.searches.iter().filter(|search| !search.levels.is_empty()) {
        let name = label(summary, &search.variant);
        blocks.push(Block::subheading(format!("{}: {name}, level by level", search.search)));
        blocks.push(Block::Table(levels(search)));
    }
    blocks
}

/// A line for each search and variant.
pub(crate) fn table(summary: &Summary) -> Table {
    let mut table = Table::new([
        "search",
        "variant",
        "trials",
        "users within the limits",
        "each trial",
        "knee",
    ]);
    for search in &summary.searches {
        table.row(vec![
            search.search.as_str().into(),
            label(summary, &search.variant).into(),
            (search.trials.len() as u64).into(),
            search.met_users.into(),
            each(search, |trial| Some(edge(trial))).into(),
            each(search, |trial| trial.knee_users.map(|users| users.to_string())).into(),
        ]);
    }
    table
}

fn asked(summary: &Summary) -> Vec<Block> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for search in &summary.searches {
        let entry = (search.search.to_string(), search.asked.describe());
        if !seen.contains(&entry) {
            seen.push(entry);
        }
    }
    vec![Block::Terms(seen)]
}

fn each(search: &SearchSummary, say: impl Fn(&TrialSearch) -> Option<String>) -> String {
    let each = search.trials.iter().filter_map(|t| Some(format!("{}: {}", t.block, say(t)?)));
    each.collect::<Vec<_>>().join("; ")
}

/// Where the edge lies in one trial, and why the search ended there.
fn edge(trial: &TrialSearch) -> String {
    let met = trial.met_users.map_or_else(|| "none within".to_owned(), |n| format!("{n} within"));
    let missed = trial.missed_users.map(|n| format!(", {n} not")).unwrap_or_default();
    let end = match &trial.end {
        SearchEnd::Found => String::new(),
        SearchEnd::AllMet => ", the highest that was asked for".to_owned(),
        SearchEnd::NoneMet => ", not even one user".to_owned(),
        SearchEnd::RunsUsedUp => ", then `max_runs` was reached".to_owned(),
        SearchEnd::Failed { users, kind, .. } => {
            format!(", the engine failed at {users} ({})", wire_name(kind))
        }
        SearchEnd::BrokenOff => ", broken off".to_owned(),
    };
    format!("{met}{missed}{end}")
}

fn levels(search: &SearchSummary) -> Table {
    let mut table = Table::new([
        "users",
        "runs",
        "requests",
        "limits",
        "TTFT p99 ms",
        "TPOT p99 ms",
        "failed",
        "output tok/s",
    ]);
    for level in &search.levels {
        let standing = match level.standing {
            Standing::Met => "within",
            Standing::Missed => "outside",
            Standing::Unclear => "cannot be told",
        };
        table.row(vec![
            u64::from(level.users).into(),
            level.runs.into(),
            level.sent.into(),
            standing.into(),
            level.ttft_p99_ms.into(),
            level.tpot_p99_ms.into(),
            percent(level.failed_share).into(),
            level.output_tokens_per_s.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::outcome::FailureKind;
    use crate::run::phase::PhaseEnd;
    use crate::run::search::{Search, SearchOutcome, SearchRun, level_name};
    use crate::run::slo::Slo;
    use crate::stats::fixture::{name, run};
    use crate::stats::summary::summarise;

    fn level(users: u32, over: u64, ttft: f64) -> SearchRun {
        SearchRun {
            users,
            phase: level_name(&name("saturation"), users, 1).unwrap(),
            end: PhaseEnd::Finished,
            sent: 600,
            failed: 0,
            over_ttft: over,
            over_tpot: 0,
            ttft_p99_ms: Some(ttft),
            tpot_p99_ms: Some(20.0),
            output_tokens_per_s: Some(f64::from(users) * 9.0),
        }
    }

    #[test]
    fn what_a_variant_bears_and_what_it_breaks_by() {
        let mut data = run();
        let search = Search {
            points: vec![200, 300, 500],
            slo: Slo { ttft_ms: Some(1000.0), tpot_ms: None, e2el_ms: None },
            error_budget: 0.01,
            tolerance: 0.05,
            repeats: 1,
            max_runs: 20,
        };
        data.searches = vec![(name("saturation"), search)];
        for trial in &mut data.trials {
            let died = SearchEnd::Failed {
                users: 500,
                kind: FailureKind::GpuOomRuntime,
                summary: "out of memory".to_owned(),
            };
            let breaks = trial.outcome.trial.variant == name("sim-b");
            let mut runs = vec![level(200, 0, 300.0), level(300, 0, 700.0)];
            if !breaks {
                runs.push(level(500, 200, 2000.0));
            }
            let end = if breaks { died } else { SearchEnd::Found };
            let outcome = SearchOutcome { search: name("saturation"), runs, end };
            trial.attempts.last_mut().unwrap().searches = vec![outcome];
        }
        let report = crate::report::markdown(&summarise(&data));
        let from = report.find("## Saturation").unwrap();
        let rest = &report[from..];
        insta::assert_snapshot!(&rest[..rest[3..].find("\n## ").unwrap() + 4]);
    }
}
