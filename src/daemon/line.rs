//! The sweep line: every planned trial in its order, the report after every block.
//!
//! One bad trial does not end the sweep. Only sweepd's own inability to store does.

use super::attempt::StopRequests;
use super::estimate::Took;
use super::open::OpenRun;
use super::order::Order;
use super::progress::{Progress, Watcher};
use super::stopping::Stopping;
use crate::clock;
use crate::ids::RunId;
use crate::run::outcome::TrialOutcome;
use crate::stats::summary::Summary;
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;
use crate::store::lock::RunLock;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct RunResult {
    pub(crate) summary: Summary,
    /// Every planned trial ended, and well.
    pub(crate) all_completed: bool,
}

impl RunResult {
    pub(crate) fn of(summary: Summary) -> Self {
        let status = &summary.status;
        let all_completed = status.trials_completed == status.trials_planned;
        Self { summary, all_completed }
    }
}

/// Runs the sweep into `dir`: all of it into a new one, what is missing into one that was begun.
pub(crate) async fn run(
    order: Order,
    dir: RunDir,
    id: RunId,
    lock: RunLock,
    watcher: &Watcher,
    stop: StopRequests,
) -> Result<RunResult, StoreError> {
    let run = OpenRun::open(order, dir, id, lock).await?;
    let stopping = Stopping::by_the_user(stop);
    let mut under_way = FuturesUnordered::new();
    let mut failed = None;
    loop {
        while failed.is_none()
            && !stopping.is_asked()
            && let Some(index) = run.next()
        {
            under_way.push(run.trial(run.enter(index)?, index, watcher, &stopping));
        }
        match under_way.next().await {
            None => break,
            Some(Ok(ended)) if ended.ends_block => {
                run.report()?;
                let (block, of) = (ended.outcome.trial.block, run.plan.setup.blocks);
                watcher.say(Progress::BlockEnded { block, of });
            }
            Some(Ok(_)) => {}
            // Nothing more is begun; what is under way beside it comes to its own end.
            Some(Err(error)) => {
                tracing::error!(%error, "nothing more is begun");
                failed.get_or_insert(error);
            }
        }
    }
    drop(under_way);
    failed.map_or(Ok(()), Err)?;
    Ok(RunResult::of(run.report()?))
}

/// What one smoke launch came to.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) outcome: TrialOutcome,
    pub(crate) took: Option<Took>,
    pub(crate) ready_after: Option<Duration>,
}

/// Launches each variant once and tears it down again, one after the other; nothing is measured.
pub(crate) async fn launch_only(
    order: Order,
    dir: RunDir,
    id: RunId,
    lock: RunLock,
    watcher: &Watcher,
    stop: StopRequests,
) -> Result<Vec<Launched>, StoreError> {
    let run = OpenRun::open(order, dir, id, lock).await?;
    let stopping = Stopping::by_the_user(stop);
    let mut launched = Vec::new();
    while let Some(next) = run.next().filter(|index| run.is_smoke(*index)) {
        if stopping.is_asked() {
            break;
        }
        let outcome = run.trial(run.enter(next)?, next, watcher, &stopping).await?.outcome;
        let span = clock::between(&outcome.started, &outcome.ended);
        let took = span.map(|duration| Took { trial: outcome.trial.clone(), duration });
        let attempts = run.dir.read_attempts(&outcome)?;
        let ready = attempts.iter().rev().find_map(|attempt| attempt.time_to_ready_ms);
        let ready_after = ready.map(Duration::from_millis);
        launched.push(Launched { outcome, took, ready_after });
    }
    Ok(launched)
}
