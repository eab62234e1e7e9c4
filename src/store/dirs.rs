//! Where everything of a run lies.
//!
//! ```text
//! RUN/ sweep.toml plan.json control.jsonl lock environment.json report.md summary.json summary.csv
//!   trials/BLOCK-VARIANT/ outcome.json, reopened-N.json (what attempt N had come to before a retry)
//!     attempt-N/ manifest.json engine.log outcome.json warmup/ phases/PHASE/
//!       PHASE/ requests.parquet engine.parquet facts.json
//! ```

use super::files::{self, StoreError};
use super::{engine_samples, host, parquet, telemetry};
use crate::ids::{Name, RunId, TrialId};
use crate::run::engine_sample::EngineSample;
use crate::run::gpu::{AttemptGpu, GpuSample};
use crate::run::gpu_phase::PhaseGpu;
use crate::run::host::{HostSample, PhaseHost};
use crate::run::outcome::{AttemptOutcome, TrialOutcome};
use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use std::fs;
use std::path::{Path, PathBuf};

const ENGINE_SAMPLES: &str = "engine.parquet";

/// One run's folder.
#[derive(Clone, Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
}

impl RunDir {
    /// Makes a new folder below `root`, named by sweep and time; never touches an existing one.
    pub(crate) fn create(
        root: &Path,
        sweep: &Name,
        stamp: &str,
    ) -> Result<(Self, RunId), StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
        for count in 1_u32.. {
            let id = match count {
                1 => format!("{sweep}-{stamp}"),
                _ => format!("{sweep}-{stamp}-{count}"),
            };
            let path = root.join(&id);
            match fs::create_dir(&path) {
                Ok(()) => {
                    files::sync_folder(root)?;
                    return Ok((Self { path }, RunId(id)));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("create", &path)(error)),
            }
        }
        Err(StoreError::damaged(root, "no free name for a run"))
    }

    pub(crate) fn open(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn trial(&self, trial: &TrialId) -> PathBuf {
        self.path.join("trials").join(trial.to_string())
    }

    /// Makes the folder of a new attempt.
    pub(crate) fn create_attempt(
        &self,
        trial: &TrialId,
        attempt: u32,
    ) -> Result<AttemptDir, StoreError> {
        let path = self.attempt(trial, attempt).path;
        fs::create_dir_all(path.join("phases")).map_err(StoreError::io("create", &path))?;
        Ok(AttemptDir { path })
    }

    pub(crate) fn attempt(&self, trial: &TrialId, attempt: u32) -> AttemptDir {
        AttemptDir { path: self.trial(trial).join(format!("attempt-{attempt}")) }
    }

    /// The highest number of an attempt that was begun; 0 when there was none.
    pub(crate) fn last_attempt(&self, trial: &TrialId) -> Result<u32, StoreError> {
        let folder = self.trial(trial);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(StoreError::io("list", &folder)(error)),
        };
        let number = |entry: fs::DirEntry| {
            entry.file_name().to_str()?.strip_prefix("attempt-")?.parse::<u32>().ok()
        };
        Ok(entries.flatten().filter_map(number).max().unwrap_or(0))
    }

    pub(crate) fn is_finished(&self, trial: &TrialId) -> bool {
        self.trial(trial).join("outcome.json").exists()
    }

    /// `None` when the trial is not finished.
    pub(crate) fn read_outcome(&self, trial: &TrialId) -> Result<Option<TrialOutcome>, StoreError> {
        files::read_json_if_there(&self.trial(trial).join("outcome.json"))
    }

    /// Makes a finished trial an unfinished one; what it had come to is kept under another name.
    pub(crate) fn reopen_trial(&self, trial: &TrialId) -> Result<(), StoreError> {
        let folder = self.trial(trial);
        let aside = folder.join(format!("reopened-{}.json", self.last_attempt(trial)?));
        let path = folder.join("outcome.json");
        fs::rename(&path, &aside).map_err(StoreError::io("move", &path))?;
        files::sync_folder(&folder)
    }

    /// The last file of a trial: with it, the trial is finished.
    pub(crate) fn finish_trial(
        &self,
        trial: &TrialId,
        outcome: &TrialOutcome,
    ) -> Result<(), StoreError> {
        let folder = self.trial(trial);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        files::write_json(&folder.join("outcome.json"), outcome)
    }

    /// How the attempts of a finished trial ended.
    pub(crate) fn read_attempts(
        &self,
        outcome: &TrialOutcome,
    ) -> Result<Vec<AttemptOutcome>, StoreError> {
        (1..=outcome.attempts)
            .filter_map(|number| self.attempt(&outcome.trial, number).read_outcome().transpose())
            .collect()
    }

    /// With the phases that are wanted; `None` when the trial is not finished.
    pub(crate) fn read_trial(
        &self,
        trial: &TrialId,
        wanted: impl Fn(&Name) -> bool,
    ) -> Result<Option<StoredTrial>, StoreError> {
        let Some(outcome) = self.read_outcome(trial)? else { return Ok(None) };
        let attempts = self.read_attempts(&outcome)?;
        let mut phases = Vec::new();
        for source in outcome.phases.iter().filter(|source| wanted(&source.phase)) {
            phases.push(self.attempt(trial, source.attempt).read_phase(&source.phase)?);
        }
        let gpu = self.attempt(trial, outcome.attempts).read_gpu()?;
        Ok(Some(StoredTrial { outcome, attempts, phases, gpu }))
    }
}

/// A finished trial as its files tell it.
#[derive(Clone, Debug)]
pub(crate) struct StoredTrial {
    pub(crate) outcome: TrialOutcome,
    pub(crate) attempts: Vec<AttemptOutcome>,
    pub(crate) phases: Vec<StoredPhase>,
    /// What is known of the GPUs of the attempt that ended the trial.
    pub(crate) gpu: Option<AttemptGpu>,
}

/// A phase as its files tell it.
#[derive(Clone, Debug)]
pub(crate) struct StoredPhase {
    pub(crate) facts: PhaseFacts,
    pub(crate) records: Vec<RequestRecord>,
    /// Empty where the engine was not asked.
    pub(crate) engine: Vec<EngineSample>,
    /// Absent where it owned no GPU.
    pub(crate) gpu: Option<PhaseGpu>,
    pub(crate) host: Option<PhaseHost>,
}

/// One attempt's folder.
#[derive(Clone, Debug)]
pub(crate) struct AttemptDir {
    pub(crate) path: PathBuf,
}

impl AttemptDir {
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("engine.log")
    }

    fn phase(&self, name: &Name) -> PathBuf {
        self.path.join("phases").join(name.as_str())
    }

    /// An open loop's schedule, written before its first request.
    pub(crate) fn schedule(&self, phase: &str) -> PathBuf {
        self.path.join(format!("schedule-{phase}.csv"))
    }

    /// Where the load process writes while the phase runs.
    pub(crate) fn frames(&self, stem: &str) -> PathBuf {
        self.path.join(format!("{stem}.frames"))
    }

    pub(crate) fn write_phase(
        &self,
        facts: &PhaseFacts,
        records: &[RequestRecord],
    ) -> Result<(), StoreError> {
        write_phase_to(&self.phase(&facts.phase), facts, records)
    }

    pub(crate) fn write_warmup(
        &self,
        facts: &PhaseFacts,
        records: &[RequestRecord],
    ) -> Result<(), StoreError> {
        write_phase_to(&self.path.join("warmup"), facts, records)
    }

    /// What its GPUs did in one phase: samples and figures.
    pub(crate) fn write_phase_gpu(
        &self,
        facts: &PhaseFacts,
        samples: &[GpuSample],
        figures: &PhaseGpu,
    ) -> Result<(), StoreError> {
        let folder = self.phase(&facts.phase);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        telemetry::write(&folder, samples, facts)?;
        files::write_json(&folder.join("gpu.json"), figures)
    }

    /// What the host did in one phase.
    pub(crate) fn write_phase_host(
        &self,
        phase: &Name,
        samples: &[HostSample],
        figures: Option<&PhaseHost>,
    ) -> Result<(), StoreError> {
        let folder = self.phase(phase);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        host::write(&folder.join("host.parquet"), samples)?;
        figures.map_or(Ok(()), |figures| files::write_json(&folder.join("host.json"), figures))
    }

    /// What is known of its GPUs; `None` where it owned none.
    pub(crate) fn read_gpu(&self) -> Result<Option<AttemptGpu>, StoreError> {
        files::read_json_if_there(&self.path.join("gpu.json"))
    }

    /// What is known of its GPUs.
    pub(crate) fn write_gpu(&self, facts: &AttemptGpu) -> Result<(), StoreError> {
        files::write_json(&self.path.join("gpu.json"), facts)
    }

    pub(crate) fn write_outcome(&self, outcome: &AttemptOutcome) -> Result<(), StoreError> {
        files::write_json(&self.path.join("outcome.json"), outcome)
    }

    /// `None` where the attempt has none: it is under way, or was interrupted.
    pub(crate) fn read_outcome(&self) -> Result<Option<AttemptOutcome>, StoreError> {
        let path = self.path.join("outcome.json");
        if !path.exists() {
            return Ok(None);
        }
        files::read_json(&path).map(Some)
    }

    /// Half-written files that a crash left.
    pub(crate) fn remove_temporaries(&self) -> Result<(), StoreError> {
        files::remove_temporaries(&self.path)
    }

    fn read_phase(&self, name: &Name) -> Result<StoredPhase, StoreError> {
        let folder = self.phase(name);
        let engine = folder.join(ENGINE_SAMPLES);
        Ok(StoredPhase {
            facts: files::read_json(&folder.join("facts.json"))?,
            records: parquet::read(&folder.join("requests.parquet"))?,
            engine: if engine.exists() { engine_samples::read(&engine)? } else { Vec::new() },
            gpu: files::read_json_if_there(&folder.join("gpu.json"))?,
            host: files::read_json_if_there(&folder.join("host.json"))?,
        })
    }

    /// What the engine said of itself during a phase.
    pub(crate) fn write_engine_samples(
        &self,
        phase: &Name,
        samples: &[EngineSample],
    ) -> Result<(), StoreError> {
        let folder = self.phase(phase);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        engine_samples::write(&folder.join(ENGINE_SAMPLES), samples)
    }
}

fn write_phase_to(
    folder: &Path,
    facts: &PhaseFacts,
    records: &[RequestRecord],
) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    parquet::write(&folder.join("requests.parquet"), records)?;
    files::write_json(&folder.join("facts.json"), facts)
}
