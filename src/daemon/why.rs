//! What was decided about each trial of a run, from its files alone, as data and in words.

use super::reports::PlanFile;
use crate::ids::wire_name;
use crate::run::decision::{Choice, Decision};
use crate::run::outcome::{AttemptOutcome, Ending, Failure, TrialOutcome};
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::sweep::def::PlannedTrial;
use serde::Serialize;

/// Evidence lines shown in words; the files have all.
const EVIDENCE: usize = 3;

/// One trial of the plan.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    pub(crate) trial: String,
    /// Absent while it has not ended.
    pub(crate) outcome: Option<TrialOutcome>,
    pub(crate) attempts: Vec<AttemptOutcome>,
}

/// Every trial of the plan, in its order.
pub(crate) fn explain(dir: &RunDir) -> Result<Vec<Explained>, StoreError> {
    let plan: PlanFile = files::read_json(&dir.file("plan.json"))?;
    plan.planned.iter().map(|planned| of_trial(dir, planned)).collect()
}

fn of_trial(dir: &RunDir, planned: &PlannedTrial) -> Result<Explained, StoreError> {
    let id = planned.id();
    let numbers = 1..=dir.last_attempt(&id)?;
    let attempts: Result<Vec<_>, _> =
        numbers.filter_map(|n| dir.attempt(&id, n).read_outcome().transpose()).collect();
    Ok(Explained { trial: id.to_string(), outcome: dir.read_outcome(&id)?, attempts: attempts? })
}

impl Explained {
    pub(crate) fn words(&self) -> String {
        let mut lines = Vec::new();
        match &self.outcome {
            None if self.attempts.is_empty() => {
                return format!("{}: has not begun", self.trial);
            }
            None => lines.push(format!("{}: has not ended", self.trial)),
            Some(outcome) => {
                lines.push(format!("{}: {}", self.trial, ending(&outcome.ending)));
            }
        }
        let decisions = self.outcome.as_ref().map_or(&[][..], |outcome| &outcome.decisions);
        for attempt in &self.attempts {
            lines.push(format!("  attempt {}: {}", attempt.attempt, ending(&attempt.ending)));
            if let Ending::EngineFailed { failure } = &attempt.ending {
                lines.extend(details(failure));
            }
            let after = decisions.iter().filter(|d| d.attempt == Some(attempt.attempt));
            lines.extend(after.map(decision));
        }
        lines.extend(decisions.iter().filter(|d| d.attempt.is_none()).map(decision));
        lines.join("\n")
    }
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Completed => "completed".to_owned(),
        Ending::EngineFailed { failure } => {
            format!("the engine failed: {} while {}", wire_name(&failure.kind), failure.during)
        }
        Ending::Broken { reason } => format!("broken: {reason}"),
        Ending::Cancelled { reason } => format!("cancelled: {reason}"),
        Ending::Skipped { .. } => "skipped".to_owned(),
        Ending::Interrupted { reason } => format!("interrupted: {reason}"),
    }
}

fn details(failure: &Failure) -> Vec<String> {
    let mut lines = vec![format!("    {}", failure.summary)];
    for line in failure.evidence.iter().take(EVIDENCE) {
        lines.push(format!("    line {}: {}", line.line, line.text));
    }
    lines.extend(failure.advice.iter().map(|advice| format!("    advice: {advice}")));
    lines
}

fn decision(decision: &Decision) -> String {
    let what = match &decision.choice {
        Choice::End => "the trial ended".to_owned(),
        Choice::TryAgain { retry, of, .. } => format!("launched again ({retry} of {of} retries)"),
        Choice::Limit { phase, kind } => format!("{phase} is a limit ({})", wire_name(kind)),
        Choice::SkipPhase { phase, .. } => format!("{phase} was skipped"),
        Choice::GoOn { phases } => {
            let phases: Vec<&str> = phases.iter().map(|phase| phase.as_str()).collect();
            format!("a new attempt goes on with {}", phases.join(", "))
        }
        Choice::SkipTrial { trials, .. } => {
            let trials: Vec<String> = trials.iter().map(ToString::to_string).collect();
            format!("skipped because of {}", trials.join(", "))
        }
    };
    format!("  -> {what}: {}", decision.because)
}
