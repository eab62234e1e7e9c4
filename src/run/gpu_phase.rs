//! What one phase was for its GPUs: `phases/PHASE/gpu.json`. Pure data.

use super::gpu::{ForeignProcess, Gap, Xid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Figures of the whole phase, from its first request's due time to the end of its last stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseGpu {
    pub(crate) format: u32,
    pub(crate) gpus: Vec<GpuFigures>,
    /// Those that were there in some part of the phase.
    pub(crate) foreign: Vec<ForeignProcess>,
    pub(crate) xids: Vec<Xid>,
    pub(crate) gaps: Vec<Gap>,
}

/// One GPU in one phase. A share is of 1, over the samples of the phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuFigures {
    pub(crate) uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) samples: u64,
    /// Between two samples, the phase's edges included.
    pub(crate) largest_gap_ms: Option<f64>,
    pub(crate) energy: Option<Energy>,
    /// By the other way, to hold against it: the sum of power over time.
    pub(crate) energy_integrated_j: Option<f64>,
    pub(crate) power_mean_w: Option<f64>,
    pub(crate) power_max_w: Option<f64>,
    pub(crate) power_source: Option<PowerSource>,
    pub(crate) power_limit_w: Option<f64>,
    /// The card's own limit: its TDP.
    pub(crate) power_default_w: Option<f64>,
    pub(crate) utilisation_mean_percent: Option<f64>,
    pub(crate) memory_used_max_bytes: Option<u64>,
    pub(crate) temperature_start_c: Option<u32>,
    pub(crate) temperature_mean_c: Option<f64>,
    pub(crate) temperature_max_c: Option<u32>,
    pub(crate) slowdown_c: Option<u32>,
    pub(crate) sm_clock_mean_mhz: Option<f64>,
    pub(crate) sm_clock_min_mhz: Option<u32>,
    /// Mean of the phase's last fifth against its first, as a share of the first.
    pub(crate) sm_clock_drift: Option<f64>,
    pub(crate) memory_clock_mean_mhz: Option<f64>,
    /// Held back by heat, the power cap or a brake.
    pub(crate) throttled_share: Option<f64>,
    /// Held back by heat or by the hardware's own protection.
    pub(crate) slowed_down_share: Option<f64>,
    /// Each reason by its name, idling too; one that never was is missing.
    pub(crate) throttle_shares: BTreeMap<String, f64>,
    pub(crate) pcie_sent_mean_kib_s: Option<f64>,
    pub(crate) pcie_received_mean_kib_s: Option<f64>,
}

/// Where power figures come from; they do not mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PowerSource {
    /// The driver's figure for the instant.
    Instant,
    /// The driver's plain figure: the average of the last second on an A40 and most cards since.
    Usage,
    /// The driver's average over the last second.
    Average,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EnergySource {
    Counter,
    IntegratedPower,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Energy {
    pub(crate) joules: f64,
    pub(crate) source: EnergySource,
    /// Without a reading: of the counter at the phase's edges, or of power anywhere in it.
    #[serde(default)]
    pub(crate) largest_gap_ms: Option<f64>,
    /// False: the figure stands here, and is used for nothing.
    pub(crate) valid: bool,
    /// Why it is not, or what to know of it.
    pub(crate) note: Option<String>,
}
