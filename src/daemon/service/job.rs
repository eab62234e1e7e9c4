//! What the daemon does beside its control loop: a trial, or a run's last report.
//!
//! A sign of life comes with every second in which the work could go on, from the task that does
//! it: a work that blocks gives none.

use super::recover;
use crate::daemon::gpu::Machine;
use crate::daemon::open::OpenRun;
use crate::daemon::order::Order;
use crate::daemon::progress::{Progress, Watcher};
use crate::daemon::reports::{self, Origin};
use crate::daemon::stopping::Stopping;
use crate::engine::library::Library;
use crate::form::Problems;
use crate::form::host::Disk;
use crate::ids::{RunId, TrialId};
use crate::run::outcome::TrialOutcome;
use crate::stats::summary::Summary;
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;
use crate::store::lock::{self, Asked};
use crate::sweep::installed::NotAsked;
use crate::sweep::parse;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// What every run of this daemon gets from it.
#[derive(Clone, Debug)]
pub(crate) struct Outfit {
    pub(crate) sweepd: PathBuf,
    /// The daemon's environment, of which engines get what their allow-lists name.
    pub(crate) inherited: BTreeMap<String, String>,
    pub(crate) machine: Machine,
    /// Whose rights engines get, whatever a sweep asks for.
    pub(crate) run_as: Option<String>,
    /// Where programs are looked for.
    pub(crate) search_path: OsString,
}

impl Outfit {
    /// A sweep's text, checked against the machine as it is now.
    pub(crate) fn order(&self, text: String, origin: Origin) -> Result<Order, Problems> {
        let library = Library::load(origin.engine_folders.clone())?;
        let disk = Disk::new(&self.search_path);
        Ok(Order {
            sweep: parse::parse(&origin.file, &text, &library, &disk, &NotAsked)?,
            text,
            origin,
            sweepd: self.sweepd.clone(),
            inherited: self.inherited.clone(),
            machine: self.machine.clone(),
        })
    }
}

#[derive(Debug)]
pub(crate) enum Work {
    Trial {
        dir: RunDir,
        id: RunId,
        trial: TrialId,
        index: usize,
        opening: Arc<Opening>,
        stopping: Stopping,
    },
    Close {
        dir: RunDir,
        id: RunId,
    },
}

/// A run that the first of its trials opens, for those beside and after it, too.
pub(crate) type Opening = OnceCell<OpenRun>;

/// Why a trial did not come to an outcome.
#[derive(Debug)]
pub(crate) enum WorkError {
    Store(StoreError),
    /// The run cannot be worked on as things are.
    CannotOpen(String),
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Debug)]
pub(crate) enum Worked {
    Trial { id: RunId, index: usize, result: Box<Result<TrialOutcome, WorkError>> },
    Closed { id: RunId, result: Result<Box<Summary>, StoreError> },
}

/// Does the work, and says every second that it goes on.
pub(crate) async fn work(work: Work, outfit: Arc<Outfit>, watcher: Watcher) -> Worked {
    let mut alive = tokio::time::interval(SIGN_OF_LIFE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let watcher = match &work {
        Work::Trial { id, trial, .. } => watcher.of(id, trial),
        Work::Close { .. } => watcher,
    };
    let work = do_it(work, outfit, &watcher);
    tokio::pin!(work);
    loop {
        tokio::select! {
            worked = &mut work => return worked,
            _ = alive.tick() => watcher.say(Progress::Alive),
        }
    }
}

async fn do_it(work: Work, outfit: Arc<Outfit>, watcher: &Watcher) -> Worked {
    match work {
        Work::Close { dir, id } => Worked::Closed { id, result: report(dir).await.map(Box::new) },
        Work::Trial { dir, id, index, opening, stopping, .. } => {
            let open = opening.get_or_try_init(|| open(dir, id.clone(), &outfit)).await;
            let result = match open {
                Ok(open) => {
                    watcher.say(Progress::Opened);
                    trial(open, index, watcher, &stopping).await
                }
                Err(error) => Err(error),
            };
            Worked::Trial { id, index, result: Box::new(result) }
        }
    }
}

async fn trial(
    open: &OpenRun,
    index: usize,
    watcher: &Watcher,
    stopping: &Stopping,
) -> Result<TrialOutcome, WorkError> {
    let ended = open.trial(open.enter(index)?, index, watcher, stopping).await?;
    // Between trials: nothing is measured while the report is made.
    if ended.ends_block {
        report(open.dir.clone()).await?;
        let (block, of) = (ended.outcome.trial.block, open.plan.setup.blocks);
        watcher.say(Progress::BlockEnded { block, of });
    }
    Ok(ended.outcome)
}

async fn report(dir: RunDir) -> Result<Summary, StoreError> {
    let path = dir.file("report.md");
    let made = tokio::task::spawn_blocking(move || reports::rewrite(&dir)).await;
    made.unwrap_or_else(|error| Err(StoreError::damaged(&path, error)))
}

/// Takes the run's lock and checks its sweep against the machine as it is now.
async fn open(dir: RunDir, id: RunId, outfit: &Outfit) -> Result<OpenRun, WorkError> {
    let file = dir.file("lock");
    // A dead holder's is waited for.
    let asked = tokio::task::spawn_blocking(move || lock::take(&file)).await;
    let lock = match asked.map_err(|error| WorkError::CannotOpen(error.to_string()))?? {
        Asked::Taken(lock) => lock,
        Asked::Held(holder) => {
            let by = holder.map_or_else(String::new, |holder| format!(" {}", holder.pid));
            let reason =
                format!("another process{by} works on it; continue it when that has ended");
            return Err(WorkError::CannotOpen(reason));
        }
    };
    let order = {
        let (dir, outfit) = (dir.clone(), outfit.clone());
        tokio::task::spawn_blocking(move || order(&dir, &outfit)).await
    };
    let order = order.map_err(|error| WorkError::CannotOpen(error.to_string()))??;
    Ok(OpenRun::open(order, dir, id, lock).await?)
}

/// The frozen sweep, as it can be run.
fn order(dir: &RunDir, outfit: &Outfit) -> Result<Order, WorkError> {
    let frozen = recover::frozen(dir)?;
    let problems = |problems: Problems| {
        WorkError::CannotOpen(format!("its sweep cannot be run any more: {problems}"))
    };
    let mut order = outfit.order(frozen.text, frozen.origin).map_err(problems)?;
    let asked = order.sweep.containment.run_as.take();
    order.sweep.containment.run_as = outfit.run_as.clone().or(asked);
    Ok(order)
}
