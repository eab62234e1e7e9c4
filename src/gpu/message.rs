//! What the helper is asked and what it says: lines of JSON over its pipes.

use super::facts::{ComputeMode, Gpu, Inventory};
use super::fault::Fault;
use crate::run::gpu::GpuProcess;
use crate::units::MonoNs;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One line to the helper; it answers each with one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Inventory,
    /// Everything about these GPUs.
    Inspect {
        uuids: Vec<String>,
    },
    Change {
        uuid: String,
        change: Change,
    },
    /// From now on the helper samples and answers nothing else; its lines are `WatchEvent`s.
    Watch(WatchPlan),
}

/// One setting of one GPU. All need root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    LockGpuClocks { min_mhz: u32, max_mhz: u32 },
    ResetGpuClocks,
    LockMemoryClocks { min_mhz: u32, max_mhz: u32 },
    ResetMemoryClocks,
    PowerLimit { milliwatts: u32 },
    Persistence { on: bool },
    ComputeMode { mode: ComputeMode },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Inventory(Inventory),
    Gpus(Vec<Gpu>),
    Changed,
    Failed(Fault),
}

/// What to sample, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchPlan {
    pub(crate) uuids: Vec<String>,
    /// The machine's other GPUs: of these only the processes are read.
    pub(crate) others: Vec<String>,
    pub(crate) every_ms: u64,
    /// Frames of `GpuSample`; appended to, so that a second helper goes on where the first was stuck.
    pub(crate) frames: PathBuf,
}

/// Lines of a helper that watches. Samples go to the file; only what someone must act on is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WatchEvent {
    /// A sign of life, once a second.
    Beat,
    /// The list of compute processes is another than before.
    Processes {
        gpu: u32,
        at: MonoNs,
        list: Vec<GpuProcess>,
    },
    Xid {
        gpu: u32,
        at: MonoNs,
        code: Option<u64>,
    },
    /// The GPU does not answer any more.
    Lost {
        gpu: u32,
        at: MonoNs,
        fault: Fault,
    },
    /// Nothing can be sampled at all.
    Failed(Fault),
}
