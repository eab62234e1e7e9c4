//! How long trials took, read from runs' files.

use super::estimate::Took;
use super::reports::PlanFile;
use crate::clock;
use crate::ids::Name;
use crate::run::outcome::Ending;
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::sweep::def::PlannedTrial;
use std::fs;
use std::path::{Path, PathBuf};

/// Of this run, the trials that completed.
pub(crate) fn of_run(dir: &RunDir, planned: &[PlannedTrial]) -> Result<Vec<Took>, StoreError> {
    let mut took = Vec::new();
    for trial in planned {
        let Some(outcome) = dir.read_outcome(&trial.id())? else { continue };
        let span = clock::between(&outcome.started, &outcome.ended);
        if let (Ending::Completed, Some(duration)) = (&outcome.ending, span) {
            took.push(Took { trial: trial.id(), duration });
        }
    }
    Ok(took)
}

/// Of the newest run of a sweep of this name in which a trial completed; nothing where there is none.
pub(crate) fn of_earlier(root: &Path, sweep: &Name) -> Vec<Took> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(&format!("{sweep}-")))
        })
        .collect();
    // The names end in the time of their beginning.
    folders.sort();
    let took = |folder: &PathBuf| {
        let dir = RunDir::open(folder);
        let plan: PlanFile = files::read_json(&dir.file("plan.json")).ok()?;
        let took = of_run(&dir, &plan.planned).ok()?;
        (plan.sweep == *sweep && !took.is_empty()).then_some(took)
    };
    folders.iter().rev().find_map(took).unwrap_or_default()
}
