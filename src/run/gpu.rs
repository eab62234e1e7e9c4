//! What was seen of a GPU while a trial ran. Pure data; absent is `None`, never zero.

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

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GpuProcess {
    pub(crate) pid: u32,
    pub(crate) memory_bytes: Option<u64>,
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
