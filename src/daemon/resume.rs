//! Takes up a run that an earlier sweepd left: what was interrupted is marked and will be repeated.
//!
//! Invariant: a trial with an `outcome.json` is never touched here, and no file of an attempt is
//! removed but temporary ones.

use super::reports::PlanFile;
use crate::clock;
use crate::run::outcome::{AttemptOutcome, Ending};
use crate::store::dirs::{AttemptDir, RunDir};
use crate::store::files::{self, StoreError};
use crate::supervise::tree;
use crate::units::ClockAnchor;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For the guards of a sweepd that was killed: the longest grace of an engine, and some.
const GUARDS_DONE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

const REASON: &str = "sweepd ended in the middle of it; the trial was run again";

/// What matters here of an attempt's `manifest.json`.
#[derive(Debug, Deserialize)]
struct Launched {
    marker: String,
    anchor: ClockAnchor,
}

/// Marks the trials that were under way. How many there are.
pub(crate) async fn mark_interrupted(dir: &RunDir, plan: &PlanFile) -> Result<u32, StoreError> {
    let mut interrupted = 0;
    for planned in &plan.planned {
        let trial = planned.id();
        let attempts = dir.last_attempt(&trial)?;
        if attempts == 0 || dir.is_finished(&trial) {
            continue;
        }
        let attempt = dir.attempt(&trial, attempts);
        let launched = launched(&attempt);
        if let Some(launched) = &launched {
            engine_is_gone(&launched.marker).await;
        }
        mark(&attempt, attempts, launched.map(|launched| launched.anchor))?;
        tracing::warn!(%trial, attempt = attempts, "was interrupted");
        interrupted += 1;
    }
    Ok(interrupted)
}

/// `None`: nothing was launched yet, or the file says nothing that can be used.
fn launched(attempt: &AttemptDir) -> Option<Launched> {
    files::read_json(&attempt.path.join("manifest.json")).ok()
}

/// Waits for the guard of the dead sweepd to finish its work; what it left then is killed.
async fn engine_is_gone(marker: &str) {
    let by = Instant::now() + GUARDS_DONE;
    loop {
        let left = tree::marked(marker);
        if left.is_empty() {
            return;
        }
        if Instant::now() >= by {
            for process in &left {
                tracing::warn!(
                    pid = process.pid,
                    marker,
                    "killing what an interrupted attempt left"
                );
                tree::kill(process);
            }
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn mark(attempt: &AttemptDir, number: u32, anchor: Option<ClockAnchor>) -> Result<(), StoreError> {
    attempt.remove_temporaries()?;
    let ending = Ending::Interrupted { reason: REASON.to_owned() };
    let outcome = match attempt.read_outcome()? {
        // It had ended, but the trial that it would have ended has no outcome: it does not count.
        Some(done) if done.ending == Ending::Completed => AttemptOutcome { ending, ..done },
        Some(_) => return Ok(()),
        None => AttemptOutcome::without_trace(number, ending, anchor.unwrap_or_else(clock::anchor)),
    };
    attempt.write_outcome(&outcome)
}

/// Trials that a user stopped are missing, too, when the user asks to go on.
pub(crate) fn reopen_cancelled(dir: &RunDir, plan: &PlanFile) -> Result<(), StoreError> {
    for planned in &plan.planned {
        let trial = planned.id();
        let ending = dir.read_outcome(&trial)?.map(|outcome| outcome.ending);
        if matches!(ending, Some(Ending::Cancelled { .. })) {
            dir.reopen_trial(&trial)?;
        }
    }
    Ok(())
}
