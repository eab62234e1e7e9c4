//! What is known of the machine's GPUs. Pure data; a field that the driver does not offer is `None`.

use serde::{Deserialize, Serialize};

/// The driver and its GPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inventory {
    pub(crate) driver_version: Option<String>,
    pub(crate) nvml_version: Option<String>,
    /// The newest CUDA that the driver supports, such as `12.4`.
    pub(crate) cuda_version: Option<String>,
    pub(crate) gpus: Vec<Gpu>,
}

/// One GPU. `error` says why most of it is absent, such as a GPU that fell off the bus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) index: u32,
    pub(crate) uuid: Option<String>,
    pub(crate) error: Option<super::fault::Fault>,
    pub(crate) name: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) vbios_version: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) compute_capability: Option<String>,
    pub(crate) pci: Pci,
    pub(crate) memory: Memory,
    pub(crate) power: Power,
    pub(crate) clocks: Clocks,
    pub(crate) temperature: Temperature,
    pub(crate) utilisation_percent: Option<u32>,
    pub(crate) memory_utilisation_percent: Option<u32>,
    /// `P0` (fastest) to `P15`.
    pub(crate) performance_state: Option<String>,
    /// Why clocks are below their maximum, by NVML's names.
    pub(crate) throttle_reasons: Option<Vec<String>>,
    pub(crate) ecc: Ecc,
    pub(crate) persistence: Option<bool>,
    pub(crate) compute_mode: Option<ComputeMode>,
    pub(crate) mig: Option<Mig>,
    /// `None` where the GPU has no NVLink.
    pub(crate) nvlinks: Option<Vec<NvLink>>,
    /// `None` where the driver does not tell.
    pub(crate) processes: Option<Vec<Process>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pci {
    pub(crate) bus_id: Option<String>,
    pub(crate) device_id: Option<String>,
    pub(crate) link_generation: Option<u32>,
    pub(crate) link_generation_max: Option<u32>,
    pub(crate) link_width: Option<u32>,
    pub(crate) link_width_max: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) total_bytes: Option<u64>,
    pub(crate) used_bytes: Option<u64>,
    pub(crate) free_bytes: Option<u64>,
    /// By the driver for itself; not in `used_bytes`.
    pub(crate) reserved_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Power {
    pub(crate) usage_w: Option<f64>,
    pub(crate) instant_w: Option<f64>,
    pub(crate) average_w: Option<f64>,
    pub(crate) limit_w: Option<f64>,
    pub(crate) limit_enforced_w: Option<f64>,
    /// The card's own: its TDP.
    pub(crate) limit_default_w: Option<f64>,
    pub(crate) limit_min_w: Option<f64>,
    pub(crate) limit_max_w: Option<f64>,
    /// Energy since the driver was loaded.
    pub(crate) energy_j: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clocks {
    pub(crate) graphics: ClockMhz,
    pub(crate) sm: ClockMhz,
    pub(crate) memory: ClockMhz,
}

/// In MHz.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClockMhz {
    pub(crate) now: Option<u32>,
    pub(crate) max: Option<u32>,
    pub(crate) application: Option<u32>,
    pub(crate) application_default: Option<u32>,
}

/// In degrees Celsius.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Temperature {
    pub(crate) gpu_c: Option<u32>,
    pub(crate) memory_c: Option<u32>,
    pub(crate) slowdown_c: Option<u32>,
    pub(crate) shutdown_c: Option<u32>,
    /// Above this the driver lowers clocks.
    pub(crate) gpu_max_c: Option<u32>,
    pub(crate) memory_max_c: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ecc {
    pub(crate) enabled: Option<bool>,
    pub(crate) enabled_after_reboot: Option<bool>,
    /// Since the driver was loaded.
    pub(crate) corrected: Option<u64>,
    pub(crate) uncorrected: Option<u64>,
    /// Over the card's life.
    pub(crate) corrected_ever: Option<u64>,
    pub(crate) uncorrected_ever: Option<u64>,
    /// Memory pages wait for a reboot to be retired.
    pub(crate) retirement_pending: Option<bool>,
    /// Memory rows wait for a reset of the GPU to be remapped: what cards since Ampere do instead.
    pub(crate) remapping_pending: Option<bool>,
    /// A row could not be remapped: the card is to be replaced.
    pub(crate) remapping_failed: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ComputeMode {
    Default,
    ExclusiveThread,
    Prohibited,
    ExclusiveProcess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mig {
    pub(crate) enabled: bool,
    pub(crate) enabled_after_reset: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NvLink {
    pub(crate) link: u32,
    pub(crate) active: bool,
    pub(crate) version: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProcessKind {
    Compute,
    Graphics,
}

/// A process that holds the GPU. User and command are absent where its pid is not of this machine's
/// view, as in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) kind: ProcessKind,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) user: Option<String>,
    pub(crate) command: Option<String>,
}

impl Gpu {
    /// Compute processes; `None` where the driver does not tell.
    pub(crate) fn compute(&self) -> Option<impl Iterator<Item = &Process>> {
        let all = self.processes.as_ref()?;
        Some(all.iter().filter(|process| process.kind == ProcessKind::Compute))
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.pid)?;
        match (&self.user, &self.command) {
            (None, None) => f.write_str(" (not visible from here)"),
            (user, command) => {
                let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "?".to_owned());
                write!(f, " ({}, {})", word(user), word(command))
            }
        }
    }
}
