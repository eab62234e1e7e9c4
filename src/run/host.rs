//! What the host did meanwhile: one row a second, and what it comes to in a phase. Pure data.

use crate::units::MonoNs;
use serde::{Deserialize, Serialize};

/// CPU is in cores: 1.0 is one CPU busy all the time since the sample before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostSample {
    pub(crate) at: MonoNs,
    /// Of everything on the machine.
    pub(crate) busy_cores: Option<f64>,
    pub(crate) engine_cores: Option<f64>,
    /// The load process.
    pub(crate) client_cores: Option<f64>,
    /// sweepd itself, its guard and the NVML helper.
    pub(crate) sweepd_cores: Option<f64>,
    /// Engines and clients of trials that run beside this one.
    pub(crate) beside_cores: Option<f64>,
    pub(crate) memory_available_bytes: Option<u64>,
    pub(crate) swap_used_bytes: Option<u64>,
    /// Processes that want a CPU, averaged over the last minute.
    pub(crate) load_1min: Option<f64>,
    /// Since the sample before, of all disks.
    pub(crate) disk_read_bytes: Option<u64>,
    pub(crate) disk_written_bytes: Option<u64>,
}

/// `phases/PHASE/host.json`: means over the samples of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseHost {
    pub(crate) format: u32,
    pub(crate) samples: u64,
    pub(crate) cpus: u64,
    pub(crate) busy_cores: Option<f64>,
    pub(crate) engine_cores: Option<f64>,
    pub(crate) client_cores: Option<f64>,
    pub(crate) sweepd_cores: Option<f64>,
    /// Absent in files of a sweepd that ran one trial at a time.
    #[serde(default)]
    pub(crate) beside_cores: Option<f64>,
    /// What is left of the busy ones: whatever else ran.
    pub(crate) other_cores: Option<f64>,
    pub(crate) memory_available_min_bytes: Option<u64>,
    pub(crate) swap_used_max_bytes: Option<u64>,
    /// From the phase's first sample to its last.
    pub(crate) swap_grown_bytes: Option<i64>,
    pub(crate) load_1min_max: Option<f64>,
    pub(crate) disk_read_bytes: Option<u64>,
    pub(crate) disk_written_bytes: Option<u64>,
}

impl PhaseHost {
    /// More than half a core, and more than a tenth of the machine, went to something else.
    pub(crate) fn has_busy_neighbour(&self) -> bool {
        let limit = (crate::units::count_f64(self.cpus) / 10.0).max(0.5);
        self.other_cores.is_some_and(|cores| cores > limit)
    }
}
