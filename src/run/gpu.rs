//! What was seen of a GPU while a trial ran. Pure data; absent is `None`, never zero.

use crate::physics::gpu::Gpu;
use crate::units::MonoNs;
use serde::{Deserialize, Serialize};

/// One reading of one GPU. Power has a column for each source, for they mean different things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpuSample {
    pub(crate) at: MonoNs,
    /// Its place in the trial's list of GPUs, from 0.
    pub(crate) gpu: u32,
    /// The driver's plain figure: on an A40 and most cards since, the average of the last second.
    pub(crate) power_usage_mw: Option<u32>,
    /// The driver's figure for this instant, where it has one.
    pub(crate) power_instant_mw: Option<u32>,
    pub(crate) power_average_mw: Option<u32>,
    /// The counter of energy since the driver was loaded.
    pub(crate) energy_mj: Option<u64>,
    /// Share of time in which a kernel ran: occupancy of the time, not of the GPU.
    pub(crate) utilisation_percent: Option<u32>,
    pub(crate) memory_utilisation_percent: Option<u32>,
    pub(crate) memory_used_bytes: Option<u64>,
    pub(crate) temperature_c: Option<u32>,
    pub(crate) sm_clock_mhz: Option<u32>,
    pub(crate) memory_clock_mhz: Option<u32>,
    /// NVML's bit set; `throttle_names` spells it out.
    pub(crate) throttle_reasons: Option<u64>,
    pub(crate) pcie_sent_kib_s: Option<u32>,
    pub(crate) pcie_received_kib_s: Option<u32>,
    /// Compute processes and the memory that each holds; read less often than the rest.
    pub(crate) processes: Option<Vec<GpuProcess>>,
}

#[cfg(test)]
impl GpuSample {
    /// Of which nothing is known but its time.
    pub(crate) fn at(at: MonoNs) -> Self {
        Self {
            at,
            gpu: 0,
            power_usage_mw: None,
            power_instant_mw: None,
            power_average_mw: None,
            energy_mj: None,
            utilisation_percent: None,
            memory_utilisation_percent: None,
            memory_used_bytes: None,
            temperature_c: None,
            sm_clock_mhz: None,
            memory_clock_mhz: None,
            throttle_reasons: None,
            pcie_sent_kib_s: None,
            pcie_received_kib_s: None,
            processes: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GpuProcess {
    pub(crate) pid: u32,
    pub(crate) memory_bytes: Option<u64>,
}

/// A compute process of nobody's trial, on a GPU that a trial owned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForeignProcess {
    pub(crate) gpu: String,
    pub(crate) pid: u32,
    pub(crate) user: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) first_seen: MonoNs,
    pub(crate) last_seen: MonoNs,
}

impl ForeignProcess {
    /// It was there in some part of the span.
    pub(crate) fn overlaps(&self, from: MonoNs, to: MonoNs) -> bool {
        self.first_seen <= to && self.last_seen >= from
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Xid {
    pub(crate) gpu: String,
    pub(crate) at: MonoNs,
    /// `None` where the driver does not say which.
    pub(crate) code: Option<u64>,
}

/// A span without samples, because NVML did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    pub(crate) from: MonoNs,
    pub(crate) to: MonoNs,
    pub(crate) why: String,
}

/// Whether the engine was seen on its GPUs and on no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    /// Its processes were on each of its GPUs, and on no other.
    Verified,
    /// No process of it was seen on one of its GPUs.
    NotSeen,
    /// It was on a GPU that is not its own.
    Elsewhere,
    /// The driver tells no processes, or pids that are not of this machine's view, as in a container.
    Unverifiable,
}

/// A GPU that a trial owned: `gpus` of `attempt-N/gpu.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OwnedGpu {
    pub(crate) uuid: String,
    pub(crate) index: u32,
    pub(crate) name: Option<String>,
    /// The card of this name, where the table of GPUs knows it.
    #[serde(default)]
    pub(crate) card: Option<Gpu>,
    /// The card's own limit: its TDP.
    pub(crate) power_default_w: Option<f64>,
    pub(crate) power_limit_w: Option<f64>,
    /// Where the driver begins to lower clocks, by its own word.
    pub(crate) slowdown_c: Option<u32>,
    pub(crate) sm_clock_max_mhz: Option<u32>,
    pub(crate) memory_before_bytes: Option<u64>,
    pub(crate) memory_after_bytes: Option<u64>,
    pub(crate) temperature_before_c: Option<u32>,
    pub(crate) ecc_uncorrected_before: Option<u64>,
    pub(crate) ecc_uncorrected_after: Option<u64>,
}

/// Everything about the GPUs of one attempt: `attempt-N/gpu.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttemptGpu {
    pub(crate) format: u32,
    pub(crate) driver_version: Option<String>,
    pub(crate) gpus: Vec<OwnedGpu>,
    /// The variables that pinned the engine.
    pub(crate) pin: Vec<(String, String)>,
    /// What was set, in words; put back after the attempt.
    pub(crate) settings: Vec<String>,
    pub(crate) placement: Placement,
    pub(crate) foreign: Vec<ForeignProcess>,
    pub(crate) xids: Vec<Xid>,
    pub(crate) lost: Option<String>,
    pub(crate) gaps: Vec<Gap>,
    /// Why the GPUs were not given back as they were; `None`: they were.
    pub(crate) not_released: Option<String>,
    /// Settings that could not be put back.
    pub(crate) not_restored: Vec<String>,
}

/// Why a clock is below its maximum, in NVML's bits.
const THROTTLE: [(u64, &str); 9] = [
    (0x1, "gpu_idle"),
    (0x2, "applications_clocks_setting"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
];

/// The card was held back: by heat, by its power cap, by a brake. Idling and clocks that were asked for
/// are not throttling.
pub(crate) const THROTTLED: u64 = 0x4 | 0x8 | 0x20 | 0x40 | 0x80;
/// Held back by heat or by the hardware's own protection: never a steady state.
pub(crate) const SLOWED_DOWN: u64 = 0x8 | 0x20 | 0x40 | 0x80;

/// The reasons of a bit set, by name; a bit that has none here is given as its number.
pub(crate) fn throttle_names(bits: u64) -> Vec<String> {
    let known = THROTTLE.iter().filter(|(bit, _)| bits & bit != 0);
    let mut names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    let rest = THROTTLE.iter().fold(bits, |rest, (bit, _)| rest & !bit);
    if rest != 0 {
        names.push(format!("0x{rest:x}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_without_a_name_is_not_dropped() {
        assert_eq!(throttle_names(0), Vec::<String>::new());
        assert_eq!(throttle_names(0x24), ["sw_power_cap", "sw_thermal_slowdown"]);
        assert_eq!(throttle_names(0x1001), ["gpu_idle", "0x1000"]);
    }
}
