//! The engines' own lives: readiness, memory, exit, teardown. One row a launch.

use crate::ids::wire_name;
use crate::report::block::Block;
use crate::report::figure::ABSENT;
use crate::report::sections::failures::exit_text;
use crate::report::sections::label;
use crate::report::table::{Entry, Table};
use crate::run::outcome::{Ending, Teardown, TeardownVerdict};
use crate::stats::interval::{Interval, OverTrials};
use crate::stats::summary::{AttemptSummary, Summary, TrialSummary};
use crate::units::count_f64;

const MIB: f64 = 1_048_576.0;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut launches = Table::new([
        "block",
        "variant",
        "attempt",
        "outcome",
        "ready after s",
        "peak host MiB",
        "exit",
        "teardown",
    ]);
    for trial in &summary.trials {
        for attempt in &trial.attempts {
            launches.row(launch(summary, trial, attempt));
        }
    }
    if launches.is_empty() {
        return Vec::new();
    }
    let mut over = Table::new(["variant", "ready after s", "peak host MiB"]);
    for variant in &summary.variants {
        over.row(vec![
            label(summary, &variant.facts.name).into(),
            variant.time_to_ready_ms.map(|time| scaled(time, 1e-3)).into(),
            variant.peak_host_memory_bytes.map(|memory| scaled(memory, 1.0 / MIB)).into(),
        ]);
    }
    vec![
        Block::Table(over),
        Block::text(
            "Mean over trials ± half of the 95 % interval. Ready: the endpoint answered and one token was \
             generated. Peak host memory: resident memory summed over the engine's processes, the highest sample.",
        ),
        Block::subheading("Every launch"),
        Block::Table(launches),
    ]
}

fn launch(summary: &Summary, trial: &TrialSummary, attempt: &AttemptSummary) -> Vec<Entry> {
    let memory = attempt.peak_host_memory_bytes.map(|bytes| count_f64(bytes) / MIB);
    vec![
        u64::from(trial.block).into(),
        label(summary, &trial.variant).into(),
        u64::from(attempt.attempt).into(),
        outcome(&attempt.outcome).into(),
        attempt.time_to_ready_ms.map(|ms| count_f64(ms) / 1e3).into(),
        memory.into(),
        attempt.exit.map_or_else(|| ABSENT.to_owned(), exit_text).into(),
        attempt.teardown.as_ref().map_or_else(|| ABSENT.to_owned(), teardown).into(),
    ]
}

fn outcome(ending: &Ending) -> String {
    match ending {
        Ending::Completed => "completed".to_owned(),
        Ending::EngineFailed { failure } => wire_name(&failure.kind),
        Ending::Broken { .. } => "broken".to_owned(),
        Ending::Cancelled { .. } => "cancelled".to_owned(),
        Ending::Skipped { .. } => "skipped".to_owned(),
        Ending::Interrupted { .. } => "interrupted".to_owned(),
    }
}

fn teardown(teardown: &Teardown) -> String {
    let mut said = wire_name(&teardown.verdict);
    if teardown.verdict == TeardownVerdict::Clean && teardown.leader_killed {
        said.push_str(", by SIGKILL");
    }
    if teardown.strays_killed > 0 {
        said.push_str(&format!(", {} stray(s) killed", teardown.strays_killed));
    }
    said
}

fn scaled(figure: OverTrials, by: f64) -> OverTrials {
    OverTrials {
        trials: figure.trials,
        mean: figure.mean * by,
        sd: figure.sd.map(|sd| sd * by),
        ci95: figure.ci95.map(|ci| Interval { lower: ci.lower * by, upper: ci.upper * by }),
        min: figure.min * by,
        max: figure.max * by,
    }
}
