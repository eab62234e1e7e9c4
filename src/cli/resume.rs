//! `sweepd run --resume RUN`: a run that was begun, found and checked before it is taken up again.

use super::input::{self, Refused};
use super::run::{Begun, order};
use crate::daemon::reports::{Origin, PlanFile};
use crate::daemon::{begin, resume};
use crate::store::dirs::RunDir;
use crate::store::lock::{self, Asked, RunLock};
use anyhow::Context;
use similar::TextDiff;
use std::path::Path;

/// What there is to do in a run that was begun.
pub(super) enum Found {
    Missing(Box<Begun>),
    Finished(RunDir),
}

/// Finds the run, takes its lock and checks that it is still the sweep that was begun.
pub(super) fn take_up(run: &Path, sweep: Option<&Path>, root: &Path) -> anyhow::Result<Found> {
    let dir = input::find_run(run, root)?;
    let lock = take_lock(&dir)?;
    let plan = begin::read(&dir).context("cannot resume")?;
    let plan = plan.ok_or_else(|| Refused::NoRun(run.to_owned()))?;
    let frozen = input::read_text(&dir.file("sweep.toml"))?;
    let origin = match (&plan.origin, sweep) {
        (Some(origin), _) => origin.clone(),
        (None, Some(file)) => Origin {
            file: std::path::absolute(file)?,
            engine_folders: input::engine_folders(vec![]),
        },
        (None, None) => return Err(no_origin(&dir).into()),
    };
    if let Some(file) = sweep {
        is_the_same(&dir, &frozen, file)?;
    }
    resume::reopen_cancelled(&dir, &plan).context("cannot resume")?;
    if is_finished(&dir, &plan) {
        return Ok(Found::Finished(dir));
    }
    let sweep = input::check(&origin.file, &frozen, origin.engine_folders.clone())?;
    let order = order(input::Input { sweep, text: frozen, origin })?;
    Ok(Found::Missing(Box::new(Begun { order, dir, id: plan.run, lock })))
}

fn is_finished(dir: &RunDir, plan: &PlanFile) -> bool {
    plan.planned.iter().all(|trial| dir.is_finished(&trial.id()))
}

fn take_lock(dir: &RunDir) -> anyhow::Result<RunLock> {
    match lock::take(&dir.file("lock")).context("cannot resume")? {
        Asked::Taken(lock) => Ok(lock),
        Asked::Held(holder) => {
            let by = holder.map_or_else(String::new, |holder| {
                format!(" by process {}, since {}", holder.pid, holder.since)
            });
            let run = dir.path.display();
            Err(Refused::Other(format!("{run} is being worked on{by}: it needs no resume")).into())
        }
    }
}

fn no_origin(dir: &RunDir) -> Refused {
    let run = dir.path.display();
    Refused::Other(format!(
        "{run} does not say where its sweep file lay: name the file, sweepd run SWEEP --resume RUN"
    ))
}

/// A changed file is another experiment: the difference is shown, and nothing is touched.
fn is_the_same(dir: &RunDir, frozen: &str, file: &Path) -> Result<(), Refused> {
    let given = input::read_text(file)?;
    if given == frozen {
        return Ok(());
    }
    let begun = dir.file("sweep.toml");
    let diff = TextDiff::from_lines(frozen, &given);
    let diff = diff
        .unified_diff()
        .context_radius(1)
        .header(&begun.display().to_string(), &file.display().to_string())
        .to_string();
    Err(Refused::Other(format!(
        "the sweep file has changed since the run was begun:\n{diff}\
         undo the change, or leave the file out to go on as begun; a changed sweep is a run of its own"
    )))
}
