//! How trials and attempts end.

use super::FORMAT;
use super::containment::{KernelEvidence, LeftProcess, SharedMemory};
use super::decision::Decision;
use super::effective::EffectiveConfig;
use super::search::SearchOutcome;
use super::signal::Signal;
use crate::clock;
use crate::ids::{Name, RunId, TrialId};
use crate::units::ClockAnchor;
use serde::{Deserialize, Serialize};

/// Why an engine failed. One vocabulary for rules, reports and exit reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    GpuOomWeights,
    GpuOomKvCache,
    GpuOomRuntime,
    HostOom,
    GpuBusyOrLeaked,
    /// Never became ready, and said no other reason.
    StartupTimeoutOrHang,
    /// Was ready, then made no progress.
    WatchdogTimeout,
    NcclError,
    CudaIllegalAccess,
    CudaDriverMismatch,
    NoGpu,
    XidOrHwFault,
    PortInUse,
    BadFlag,
    BadConfig,
    ModelNotFound,
    ModelGatedOrAuth,
    UnsupportedModelOrArch,
    DependencyImportError,
    CompileFailure,
    DiskFull,
    TokenizerOrTemplateError,
    RequestTimeout,
    RequestTooLong,
    CrashSegfault,
    AssertionOrPythonException,
    ShmOrIpcLimit,
    PermissionDenied,
    KilledByUser,
    ProxyOrNetwork,
    /// The endpoint answers, but no token can be had from it.
    CannotGenerate,
    /// The program could not be started at all.
    CannotLaunch,
    /// It ended, and neither its log nor its status says why.
    ExitedUnexpectedly,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => f.write_str(name.as_str()),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// A line of the engine's log that speaks for a verdict. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EvidenceLine {
    pub(crate) line: u64,
    pub(crate) text: String,
}

/// Why an engine failed, with what shows it and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The state it was in: `loading`, `phase 50-users`.
    pub(crate) during: String,
    /// One sentence for the reader of the report.
    pub(crate) summary: String,
    pub(crate) evidence: Vec<EvidenceLine>,
    pub(crate) advice: Option<String>,
    /// How many more launches the engine's file says it is worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retries: Option<u32>,
}

/// How the teardown went: a vocabulary of its own, apart from why it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TeardownVerdict {
    /// No process of the engine is left and its port is free.
    Clean,
    PortHeld,
    GpuNotReleased,
    /// SIGKILL did not end it.
    Unkillable,
    /// The guard died before it could say.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Teardown {
    pub(crate) verdict: TeardownVerdict,
    /// SIGKILL was needed for the leader after its grace.
    pub(crate) leader_killed: bool,
    /// Processes other than the leader that had to be killed.
    pub(crate) strays_killed: u32,
    pub(crate) took_ms: u64,
    /// What is still there when the verdict is not clean.
    pub(crate) detail: Option<String>,
    /// Processes that SIGKILL did not end, and where in the kernel they wait.
    #[serde(default)]
    pub(crate) left: Vec<LeftProcess>,
    #[serde(default)]
    pub(crate) shared_memory: SharedMemory,
}

/// How a trial or an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ending")]
pub(crate) enum Ending {
    Completed,
    EngineFailed {
        failure: Failure,
    },
    /// sweepd's own fault or the machine's: disk full, load generator gone.
    Broken {
        reason: String,
    },
    Cancelled {
        reason: String,
    },
    Skipped {
        reason: String,
    },
    /// sweepd ended in the middle of it; the trial was, or will be, run again.
    Interrupted {
        reason: String,
    },
}

impl Ending {
    /// The word that stands for it in files and tables.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::EngineFailed { .. } => "engine_failed",
            Self::Broken { .. } => "broken",
            Self::Cancelled { .. } => "cancelled",
            Self::Skipped { .. } => "skipped",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    /// Why, in a sentence; `None` when it completed.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Completed => None,
            Self::EngineFailed { failure } => Some(&failure.summary),
            Self::Broken { reason }
            | Self::Cancelled { reason }
            | Self::Skipped { reason }
            | Self::Interrupted { reason } => Some(reason),
        }
    }
}

/// One launch of an engine: what was done and how it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttemptOutcome {
    pub(crate) format: u32,
    pub(crate) attempt: u32,
    #[serde(flatten)]
    pub(crate) ending: Ending,
    /// RFC 3339, UTC.
    pub(crate) started: String,
    pub(crate) ended: String,
    pub(crate) anchor: ClockAnchor,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) time_to_ready_ms: Option<u64>,
    /// Resident memory summed over the engine's processes, the highest of the samples.
    pub(crate) peak_host_memory_bytes: Option<u64>,
    /// What was seen of an engine that was given up while it lived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) signals: Vec<Signal>,
    /// What the kernel knows of memory that ran out meanwhile.
    #[serde(default)]
    pub(crate) kernel: Option<KernelEvidence>,
    /// None if the engine was never launched.
    pub(crate) teardown: Option<Teardown>,
    /// What the engine really ran with; absent if it never became ready, or before this was read.
    #[serde(default)]
    pub(crate) effective: Option<EffectiveConfig>,
    /// The phase in which it failed; its records are kept, too.
    #[serde(default)]
    pub(crate) failed_phase: Option<Name>,
    /// Phases of which this attempt has the records.
    pub(crate) phases: Vec<Name>,
    /// What its searches ran; their runs are among the phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) searches: Vec<SearchOutcome>,
    /// Every change of state, in order: when (ms since `started`) and what.
    pub(crate) timeline: Vec<TimelineEntry>,
}

impl AttemptOutcome {
    /// Of an attempt that left no outcome of its own: only its end is known, and that is now.
    pub(crate) fn without_trace(attempt: u32, ending: Ending, anchor: ClockAnchor) -> Self {
        Self {
            format: FORMAT,
            attempt,
            ending,
            started: clock::wall_time_of(anchor.realtime_ns),
            ended: clock::wall_time(),
            anchor,
            exit: None,
            time_to_ready_ms: None,
            peak_host_memory_bytes: None,
            signals: Vec::new(),
            kernel: None,
            teardown: None,
            effective: None,
            failed_phase: None,
            phases: Vec::new(),
            searches: Vec::new(),
            timeline: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TimelineEntry {
    pub(crate) at_ms: u64,
    pub(crate) what: String,
}

/// Which attempt stands behind a phase's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PhaseSource {
    pub(crate) phase: Name,
    pub(crate) attempt: u32,
}

/// How one trial ended. A trial is finished if and only if this file exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrialOutcome {
    pub(crate) format: u32,
    pub(crate) run: RunId,
    #[serde(flatten)]
    pub(crate) trial: TrialId,
    /// The engine is a simulation: nothing here was measured on a real one.
    pub(crate) simulated: bool,
    #[serde(flatten)]
    pub(crate) ending: Ending,
    pub(crate) attempts: u32,
    /// Trials that ran at the same time, on GPUs of their own, for all or part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) beside: Vec<TrialId>,
    pub(crate) phases: Vec<PhaseSource>,
    /// What was decided on the way, in order.
    #[serde(default)]
    pub(crate) decisions: Vec<Decision>,
    pub(crate) started: String,
    pub(crate) ended: String,
}
