//! The reports of a run, made from its files alone: while it runs, when it ends, and later.

use super::provenance;
use crate::ids::{Name, RunId};
use crate::report;
use crate::run::calibration::Calibration;
use crate::run::search::Search;
use crate::sample::host::HostFacts;
use crate::stats::cards;
use crate::stats::data::{
    PhaseData, PhasePlan, RunData, Setup, TrialData, VariantFacts, VersionChange,
};
use crate::stats::summary::{Summary, summarise};
use crate::store::control::{self, Change, ControlLine};
use crate::store::dirs::{RunDir, StoredPhase, StoredTrial};
use crate::store::files::{self, StoreError};
use crate::sweep::def::PlannedTrial;
use crate::sweep::side::SideBySide;
use crate::sweep::smoke::SMOKE_BLOCK;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `plan.json`: what was to be done, complete enough to make a report without the sweep file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlanFile {
    pub(crate) format: u32,
    pub(crate) run: RunId,
    pub(crate) sweep: Name,
    pub(crate) setup: Setup,
    pub(crate) variants: Vec<VariantFacts>,
    pub(crate) phases: Vec<PhasePlan>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) searches: Vec<(Name, Search)>,
    pub(crate) planned: Vec<PlannedTrial>,
    /// Which of them may run at once.
    #[serde(default)]
    pub(crate) side_by_side: SideBySide,
    /// Where the sweep file lay. Absent in runs of an early sweepd.
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
}

/// What a sweep file's text alone does not say: what its relative paths and engine names mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The sweep file, absolute.
    pub(crate) file: PathBuf,
    /// Folders of engine files, absolute, in the order in which they are searched.
    pub(crate) engine_folders: Vec<PathBuf>,
}

/// Rewrites report and summaries from the run's files.
pub(crate) fn rewrite(dir: &RunDir) -> Result<Summary, StoreError> {
    let data = read(dir)?;
    let summary = summarise(&data);
    let json = report::json(&summary)
        .map_err(|error| StoreError::damaged(&dir.file("summary.json"), error))?;
    files::write(&dir.file("summary.json"), json.as_bytes())?;
    files::write(&dir.file("summary.csv"), report::csv(&summary).as_bytes())?;
    files::write(&dir.file("report.md"), report::markdown(&summary).as_bytes())?;
    Ok(summary)
}

fn read(dir: &RunDir) -> Result<RunData, StoreError> {
    let plan: PlanFile = files::read_json(&dir.file("plan.json"))?;
    let host: HostFacts = files::read_json(&dir.file("environment.json"))?;
    let (smoke, planned): (Vec<_>, Vec<_>) =
        plan.planned.into_iter().partition(|trial| trial.block == SMOKE_BLOCK);
    // A search's levels stand in its outcome; their records are for whoever opens the files.
    let has_cells = |phase: &Name| plan.phases.iter().any(|planned| planned.name == *phase);
    let trials = read_trials(dir, &planned, has_cells)?;
    let smoke_trials = read_trials(dir, &smoke, |_| true)?;
    let mut variants = plan.variants;
    cards::fill(&mut variants, &trials);
    Ok(RunData {
        run: plan.run,
        sweep: plan.sweep,
        setup: plan.setup,
        host: host_facts(&host, cards::words(&trials)),
        variants,
        phases: plan.phases,
        searches: plan.searches,
        calibration: calibration(dir)?,
        provenance: provenance::read(dir)?,
        planned,
        trials,
        smoke,
        smoke_trials,
        version_changes: version_changes(&control::read(&dir.file("control.jsonl"))?),
    })
}

const CALIBRATION: &str = "calibration.json";

/// Absent where nobody calibrated.
fn calibration(dir: &RunDir) -> Result<Option<Calibration>, StoreError> {
    files::read_json_if_there(&dir.file(CALIBRATION))
}

/// Keeps a calibration with a run; the next report shows it.
pub(crate) fn keep_calibration(dir: &RunDir, calibration: &Calibration) -> Result<(), StoreError> {
    files::write_json(&dir.file(CALIBRATION), calibration)
}

fn read_trials(
    dir: &RunDir,
    planned: &[PlannedTrial],
    wanted: impl Fn(&Name) -> bool,
) -> Result<Vec<TrialData>, StoreError> {
    let mut trials = Vec::new();
    for trial in planned {
        trials.extend(dir.read_trial(&trial.id(), &wanted)?.map(trial_data));
    }
    Ok(trials)
}

/// Engines whose version was another one after a resume.
fn version_changes(lines: &[ControlLine]) -> Vec<VersionChange> {
    let mut changes = Vec::new();
    let mut known: BTreeMap<&Name, &String> = BTreeMap::new();
    for line in lines {
        let (Change::Began { versions, .. } | Change::Resumed { versions, .. }) = &line.change
        else {
            continue;
        };
        for (variant, now) in versions {
            if let Some(before) = known.insert(variant, now).filter(|before| *before != now) {
                changes.push(VersionChange {
                    variant: variant.clone(),
                    before: before.clone(),
                    after: now.clone(),
                    at: line.at.clone(),
                });
            }
        }
    }
    changes
}

fn trial_data(stored: StoredTrial) -> TrialData {
    let phase = |stored: StoredPhase| PhaseData {
        facts: stored.facts,
        records: stored.records,
        engine: stored.engine,
        gpu: stored.gpu,
        host: stored.host,
    };
    TrialData {
        outcome: stored.outcome,
        attempts: stored.attempts,
        phases: stored.phases.into_iter().map(phase).collect(),
        gpu: stored.gpu,
    }
}

/// In the order in which they are shown; what is not known is left out.
fn host_facts(host: &HostFacts, gpus: Option<String>) -> Vec<(String, String)> {
    let gib = |bytes| format!("{:.1} GiB", crate::units::count_f64(bytes) / f64::from(1 << 30));
    let logical = host.cpus.map(|cpus| format!(", {cpus} logical")).unwrap_or_default();
    [
        ("sweepd", Some(host.sweepd_version.clone())),
        ("host", host.host_name.clone()),
        ("system", host.operating_system.clone()),
        ("kernel", host.kernel.clone()),
        ("CPU", host.cpu.as_ref().map(|cpu| format!("{cpu}{logical}"))),
        ("memory", host.memory_bytes.map(gib)),
        ("GPU", Some(gpus.unwrap_or_else(|| "no GPU telemetry".to_owned()))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
