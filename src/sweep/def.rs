//! The checked sweep: only what can be true. Everything downstream takes this and asks no more.

use super::containment::Containment;
use super::gpu::{GpuPlan, Wanted};
use super::policy::Policy;
use super::side::Lanes;
pub(crate) use crate::engine::def::Endpoint;
use crate::engine::def::{EngineDef, ParamValue};
use crate::ids::{Name, TrialId};
use crate::physics::gpu::Hardware;
use crate::run::search::Search;
use crate::run::slo::Class;
use crate::seed::Seed;
use crate::workload::schedule::OpenLoop;
use crate::workload::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    pub(crate) name: Name,
    pub(crate) seed: Seed,
    /// How often each variant is launched and measured: the replicates.
    pub(crate) blocks: NonZeroU32,
    pub(crate) variants: Vec<Variant>,
    pub(crate) sampling: Sampling,
    pub(crate) workload: Workload,
    /// Of the requests; empty where all are alike.
    pub(crate) classes: Vec<Class>,
    /// Each variant is launched once before the first block.
    pub(crate) smoke_first: bool,
    pub(crate) warmup: Warmup,
    pub(crate) phases: Vec<Phase>,
    pub(crate) deadlines: Deadlines,
    /// What could not be checked beforehand, for the reader.
    pub(crate) notes: Vec<String>,
    /// Files that requests are taken from: data sets, traces, lists of lengths.
    pub(crate) data: Vec<PathBuf>,
    pub(crate) containment: Containment,
    pub(crate) policy: Policy,
    /// How many trials run at once, and on which CPUs.
    pub(crate) lanes: Lanes,
    /// Event loops of the load generator, at most.
    pub(crate) loops: NonZeroU32,
    /// How trials own GPUs; `None`: as their engines' files say.
    pub(crate) gpu: Option<GpuPlan>,
}

/// One engine with one set of parameters and one model.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: Name,
    pub(crate) engine: Arc<EngineDef>,
    /// What `{program}` stands for.
    pub(crate) program: Option<String>,
    /// The interpreter that runs it, where it is a Python script.
    pub(crate) python: Option<String>,
    pub(crate) model: Model,
    /// As the sweep says; what a driver says goes first.
    pub(crate) hardware: Option<Hardware>,
    pub(crate) params: BTreeMap<String, ParamValue>,
    /// Flags that the engine file does not know, as they are.
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) env_pass: Vec<String>,
    /// Its own GPUs; `None`: as `[gpu]` says.
    pub(crate) gpus: Option<Wanted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// A local file or folder, made absolute against the sweep file's folder.
    pub(crate) path: PathBuf,
    /// The name in requests and in the list of models.
    pub(crate) served_name: String,
    /// The model's `tokenizer.json`.
    pub(crate) tokenizer: PathBuf,
}

/// Sampling parameters by our names, always sent explicitly. `temperature` is always among them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sampling(pub(crate) BTreeMap<String, f64>);

/// What is asked of the engine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) endpoint: Endpoint,
    pub(crate) shape: Shape,
    /// Input sequence length: content tokens, without special tokens or template. Of mixed lengths
    /// the longest.
    pub(crate) prompt_tokens: NonZeroU32,
    pub(crate) output_tokens: NonZeroU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Warmup {
    /// 0: no warm-up.
    pub(crate) requests: u32,
    pub(crate) users: NonZeroU32,
}

/// One load level.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: Name,
    /// Of a closed loop; in an open one the most that may be in flight.
    pub(crate) users: NonZeroU32,
    pub(crate) pattern: Pattern,
    /// The phase ends when both of these are met.
    pub(crate) min_requests: u32,
    pub(crate) min_duration: Duration,
}

/// What decides when a request is due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    /// Each user's next request follows its last one, after thinking.
    Closed { think_time: Duration, ramp_up: Duration },
    /// By the clock, whatever the engine does.
    Open(OpenLoop),
    /// Closed loops of as many users as it takes to know how many the engine bears; the phase's
    /// minima are those of each run, and its users the most that are tried.
    Search(Search),
}

impl Pattern {
    pub(crate) const CLOSED: Self =
        Self::Closed { think_time: Duration::ZERO, ramp_up: Duration::ZERO };
}

/// The longest each state may last. No wait is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// From the guard's start to the engine's exec.
    pub(crate) launch: Duration,
    /// From exec to the first 200; `None`: the engine file's `ready.within`.
    pub(crate) load: Option<Duration>,
    /// From the first 200 to a generated token.
    pub(crate) ready: Duration,
    pub(crate) warmup: Duration,
    pub(crate) phase: Duration,
    pub(crate) request: Duration,
    /// No byte of a stream for longer than this is a stall; of all streams, a hang.
    pub(crate) stall: Duration,
    /// From the stop signal to SIGKILL; `None`: the engine file's `stop.grace`.
    pub(crate) stop: Option<Duration>,
    /// From SIGKILL to the proof that nothing is left and the port is free.
    pub(crate) verify: Duration,
}

/// One variant in one block, in the order in which it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedTrial {
    pub(crate) block: u32,
    pub(crate) variant: Name,
}

impl PlannedTrial {
    pub(crate) fn id(&self) -> TrialId {
        TrialId { block: self.block, variant: self.variant.clone() }
    }
}
