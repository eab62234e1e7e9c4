//! What held an engine together, and what the kernel knows of its end. Only data.
//!
//! Absent is absent: a count that could not be read is `None`, never 0.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What holds an attempt's processes together, by capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Containment {
    /// `session`, `subreaper`, `marker`, and control groups where they could be made.
    pub(crate) means: Vec<String>,
    /// One write ends every process in the group, at once, also those that fork meanwhile.
    pub(crate) kill: bool,
    /// The kernel says whether a process is left in the group.
    pub(crate) populated: bool,
    /// The group's memory is counted, and what the kernel killed in it for want of memory.
    pub(crate) memory: bool,
    pub(crate) memory_limit_bytes: Option<u64>,
    /// Why there is no control group.
    pub(crate) without: Option<String>,
    pub(crate) groups: Groups,
    /// Whose rights the engine has, where not sweepd's own.
    pub(crate) run_as: Option<String>,
}

/// Folders of the control groups made for one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// A leaf of the unified hierarchy.
    pub(crate) unified: Option<PathBuf>,
    /// A group of the older memory controller, where the unified hierarchy does not have it.
    pub(crate) memory_v1: Option<PathBuf>,
}

/// What the kernel knows of memory that ran out while an attempt ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelEvidence {
    /// Processes of the engine's own group that the kernel killed for want of memory.
    pub(crate) oom_kills: Option<u64>,
    /// Where that was read: `memory.events` or `memory.oom_control`.
    pub(crate) source: Option<String>,
    /// `memory.events` as it was before the group was removed.
    pub(crate) memory_events: BTreeMap<String, u64>,
    pub(crate) memory_peak_bytes: Option<u64>,
    /// Such kills on the whole host in that time, by anybody's process.
    pub(crate) host_oom_kills: Option<u64>,
    /// Lines of the kernel's log that name the engine's group or its main process.
    pub(crate) kernel_log: Vec<String>,
}

/// A process that SIGKILL did not end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftProcess {
    pub(crate) pid: i32,
    pub(crate) command: String,
    /// As `/proc/PID/stat` has it: `D` waits in the kernel and cannot be interrupted.
    pub(crate) state: char,
    /// The kernel function in which it waits.
    pub(crate) waits_in: Option<String>,
    /// Its kernel stack, where it may be read.
    pub(crate) kernel_stack: Vec<String>,
    /// The lines of `/proc/PID/status` on its state, signals and memory.
    pub(crate) status: Vec<String>,
}

impl std::fmt::Display for LeftProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waits_in = self.waits_in.as_deref().unwrap_or("an unknown place");
        write!(f, "pid {} ({}), state {}, waits in {waits_in}", self.pid, self.command, self.state)
    }
}

/// What an attempt left in `/dev/shm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedMemory {
    /// Its own beyond doubt, and of no use to anybody any more: removed.
    pub(crate) removed: Vec<Segment>,
    /// Made while it ran, and kept.
    pub(crate) left: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Why it was removed, or why it was kept.
    pub(crate) because: String,
}
