//! What a summary is made from: a run's plan, its facts and the trials that have ended.
//!
//! Only data: whoever reads the run directory fills it. Invariant: `planned` holds every trial of
//! the sweep in the order of running, `trials` only those with an outcome.

use crate::ids::{Name, RunId};
use crate::physics::gpu::Hardware;
use crate::physics::shape::ModelShape;
use crate::run::calibration::Calibration;
use crate::run::cpus::TrialCpus;
use crate::run::engine_sample::EngineSample;
use crate::run::gpu::AttemptGpu;
use crate::run::gpu_phase::PhaseGpu;
use crate::run::host::PhaseHost;
use crate::run::outcome::{AttemptOutcome, TrialOutcome};
use crate::run::phase::PhaseFacts;
use crate::run::provenance::Provenance;
use crate::run::record::RequestRecord;
use crate::run::search::Search;
use crate::sweep::def::{Endpoint, PlannedTrial};
use crate::sweep::gpu::Price;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug)]
pub(crate) struct RunData {
    pub(crate) run: RunId,
    pub(crate) sweep: Name,
    pub(crate) setup: Setup,
    /// Facts of the host, in the order in which they are shown.
    pub(crate) host: Vec<(String, String)>,
    /// In the order of the sweep file; the first is what others are set against.
    pub(crate) variants: Vec<VariantFacts>,
    pub(crate) phases: Vec<PhasePlan>,
    /// What the load generator adds, where that was measured.
    pub(crate) calibration: Option<Calibration>,
    /// Searches by name, in the order of the sweep file.
    pub(crate) searches: Vec<(Name, Search)>,
    /// Absent for a run that did not note it.
    pub(crate) provenance: Option<Provenance>,
    pub(crate) planned: Vec<PlannedTrial>,
    pub(crate) trials: Vec<TrialData>,
    /// Launches before the first block; their figures count nowhere.
    pub(crate) smoke: Vec<PlannedTrial>,
    pub(crate) smoke_trials: Vec<TrialData>,
    /// Engines that were replaced while the run was not being worked on.
    pub(crate) version_changes: Vec<VersionChange>,
}

/// One engine's version, before and after a resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionChange {
    pub(crate) variant: Name,
    pub(crate) before: String,
    pub(crate) after: String,
    /// RFC 3339, UTC.
    pub(crate) at: String,
}

/// A trial that has ended.
#[derive(Clone, Debug)]
pub(crate) struct TrialData {
    pub(crate) outcome: TrialOutcome,
    /// In order; the last one is the one that ended the trial.
    pub(crate) attempts: Vec<AttemptOutcome>,
    /// One entry a phase: that of the attempt which `outcome.phases` names.
    pub(crate) phases: Vec<PhaseData>,
    /// Of the attempt that ended the trial; absent where it owned no GPU.
    pub(crate) gpu: Option<AttemptGpu>,
}

#[derive(Clone, Debug)]
pub(crate) struct PhaseData {
    pub(crate) facts: PhaseFacts,
    pub(crate) records: Vec<RequestRecord>,
    /// What the engine said of itself; empty where it was not asked.
    pub(crate) engine: Vec<EngineSample>,
    /// What its GPUs did; absent where it owned none.
    pub(crate) gpu: Option<PhaseGpu>,
    pub(crate) host: Option<PhaseHost>,
}

/// What every trial of the sweep has in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) endpoint: Endpoint,
    /// Input sequence length: content tokens of every prompt.
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
    /// Prompts, or answers, are of different lengths: the ones above are then the longest.
    #[serde(default)]
    pub(crate) prompt_tokens_vary: bool,
    #[serde(default)]
    pub(crate) output_tokens_vary: bool,
    /// What prompts are like, in words; absent for random ones of one length.
    #[serde(default)]
    pub(crate) workload: Option<String>,
    pub(crate) blocks: u32,
    pub(crate) seed: u64,
    pub(crate) sampling: Vec<SamplingParameter>,
    /// Requests sent before the first phase of an attempt and then forgotten.
    pub(crate) warmup_requests: u32,
    /// For the cost of a million tokens, where the sweep says it.
    #[serde(default)]
    pub(crate) price: Option<Price>,
    /// Trials that may have run at once.
    #[serde(default = "one")]
    pub(crate) side_by_side: u32,
    /// What trials' processes were bound to, in each lane; empty: nothing.
    #[serde(default)]
    pub(crate) cpus: Vec<TrialCpus>,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SamplingParameter {
    pub(crate) name: String,
    pub(crate) value: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VariantFacts {
    pub(crate) name: Name,
    pub(crate) engine: Name,
    pub(crate) engine_version: Option<String>,
    /// Its figures are no measurements.
    pub(crate) simulated: bool,
    /// The name under which the model was served.
    pub(crate) model: String,
    pub(crate) params: Vec<Fact>,
    #[serde(default)]
    pub(crate) machine: MachineFacts,
}

/// What a variant's figures are held against, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineFacts {
    /// By the sweep's word, or else by the driver's.
    pub(crate) hardware: Option<Hardware>,
    /// What the driver called the card.
    #[serde(default)]
    pub(crate) card: Option<String>,
    pub(crate) shape: Option<ModelShape>,
    /// Why there is no shape.
    pub(crate) shape_unknown: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A phase as the sweep asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhasePlan {
    pub(crate) name: Name,
    pub(crate) users: u32,
    pub(crate) min_requests: u32,
    pub(crate) min_duration_s: f64,
    /// An open loop, in words; absent for a closed one.
    #[serde(default)]
    pub(crate) open: Option<String>,
}

impl PhaseData {
    /// Of an engine that was not asked.
    pub(crate) fn new(facts: PhaseFacts, records: Vec<RequestRecord>) -> Self {
        Self { facts, records, engine: Vec::new(), gpu: None, host: None }
    }
}
