//! What the guard is told and what it says: lines of JSON over one socket.

use crate::cpus::CpuSet;
use crate::engine::rules::scan::ScanSpec;
use crate::run::containment::{Groups, KernelEvidence, LeftProcess, SharedMemory};
use crate::run::outcome::{EvidenceLine, ExitStatus};
use crate::supervise::user::RunAs;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The first line to the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardSpec {
    /// Set as `SWEEPD_ATTEMPT` in the engine's environment, to find strays by.
    pub(crate) marker: String,
    pub(crate) argv: Vec<String>,
    /// The whole environment of the engine; nothing is inherited.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// Control groups that were made for it; the guard removes them.
    pub(crate) groups: Groups,
    pub(crate) run_as: Option<RunAs>,
    /// What the engine is bound to; `None`: nothing.
    pub(crate) cpus: Option<CpuSet>,
    /// Hidden wherever the guard writes or reports.
    pub(crate) secrets: Vec<String>,
    pub(crate) log: PathBuf,
    pub(crate) log_head_bytes: u64,
    pub(crate) log_tail_bytes: u64,
    /// The failure rules; one that holds for a line is reported by its index.
    pub(crate) scan: ScanSpec,
    pub(crate) stop_signal: i32,
    pub(crate) grace_ms: u64,
    /// From the first SIGKILL until the guard gives up.
    pub(crate) kill_ms: u64,
}

/// Later lines to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GuardOrder {
    /// Signal to the leader, grace, then the rest.
    Stop,
    /// Everything now.
    Kill,
    /// Note what the engine has in shared memory: it will be asked when it is gone.
    Look,
}

/// Lines from the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum GuardEvent {
    Launched {
        pid: i32,
    },
    LaunchFailed {
        error: String,
    },
    /// A line of the engine's log matched a rule; at most a few times for each rule.
    Matched {
        rule: usize,
        line: u64,
        text: String,
    },
    LeaderExited {
        status: ExitStatus,
    },
    /// A signal that the engine sent to its parent, or something else worth a line in the timeline.
    Note {
        text: String,
    },
    /// The last line.
    Ended(Box<GuardReport>),
}

/// What the guard found when it was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardReport {
    pub(crate) leader: Option<ExitStatus>,
    pub(crate) leader_killed: bool,
    pub(crate) strays_killed: u32,
    /// ECHILD was seen: no descendant is left.
    pub(crate) empty: bool,
    /// What is left when not empty, and where it waits.
    pub(crate) left: Vec<LeftProcess>,
    /// Control groups that could not be removed.
    pub(crate) groups_left: Vec<PathBuf>,
    pub(crate) kernel: KernelEvidence,
    pub(crate) shm: SharedMemory,
    pub(crate) log_lines: u64,
    pub(crate) log_bytes_elided: u64,
    /// Log bytes that could not be written, for example on a full disk.
    pub(crate) log_bytes_lost: u64,
    /// The last lines of the log.
    pub(crate) tail: Vec<EvidenceLine>,
}
