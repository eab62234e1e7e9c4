//! Launches before the first block: whether each variant works at all, and how long it takes to start.

use crate::ids::wire_name;
use crate::report::block::Block;
use crate::report::figure::ABSENT;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::run::outcome::Ending;
use crate::stats::summary::{Summary, TrialSummary};

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new(["variant", "outcome", "ready after s"]);
    for trial in summary.smoke.iter().filter(|trial| trial.outcome.is_some()) {
        let ready = trial.attempts.last().and_then(|attempt| attempt.time_to_ready_ms);
        table.row(vec![
            label(summary, &trial.variant).into(),
            outcome(trial).into(),
            ready.map(|ms| crate::units::count_f64(ms) / 1e3).into(),
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let what = "Before the first block each variant was launched once and sent one request of the whole length. These figures \
                count nowhere else.";
    vec![Block::Table(table), Block::text(what)]
}

/// For page one: variants that did not pass.
pub(super) fn notices(summary: &Summary) -> Vec<Block> {
    let failed = summary.smoke.iter().filter(|trial| is_bad(trial));
    let notice = |trial: &TrialSummary| {
        Block::Notice(format!(
            "FAILED BEFORE THE FIRST BLOCK: {} ({}). See What failed.",
            label(summary, &trial.variant),
            outcome(trial)
        ))
    };
    failed.map(notice).collect()
}

fn is_bad(trial: &TrialSummary) -> bool {
    matches!(trial.outcome, Some(Ending::EngineFailed { .. } | Ending::Broken { .. }))
}

fn outcome(trial: &TrialSummary) -> String {
    match &trial.outcome {
        None => ABSENT.to_owned(),
        Some(Ending::Completed) => "works".to_owned(),
        Some(Ending::EngineFailed { failure }) => {
            format!("{} during {}", wire_name(&failure.kind), failure.during)
        }
        Some(Ending::Broken { .. }) => "broken by the machine or by sweepd".to_owned(),
        Some(Ending::Cancelled { .. }) => "cancelled".to_owned(),
        Some(Ending::Interrupted { .. }) => "interrupted".to_owned(),
        Some(Ending::Skipped { .. }) => "skipped".to_owned(),
    }
}
