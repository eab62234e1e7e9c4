//! From samples of a GPU to the figures of a phase, and from those to a trial and over trials. Pure.

use crate::run::gpu::{AttemptGpu, GpuSample, OwnedGpu, SLOWED_DOWN, THROTTLED, throttle_names};
use crate::run::gpu_phase::{Energy, GpuFigures, PhaseGpu};
use crate::run::phase::PhaseFacts;
use crate::stats::energy::{self, Span};
use crate::stats::interval::OverTrials;
use crate::stats::quantile::mean;
use crate::units::count_f64;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `samples`: of all the attempt's GPUs, in order of time.
pub(crate) fn of_phase(
    attempt: &AttemptGpu,
    samples: &[GpuSample],
    facts: &PhaseFacts,
) -> PhaseGpu {
    let span = Span { from: facts.started, to: facts.ended };
    let gpus = (0_u32..).zip(&attempt.gpus).map(|(place, gpu)| {
        let own: Vec<&GpuSample> = samples.iter().filter(|sample| sample.gpu == place).collect();
        figures(gpu, &own, span)
    });
    PhaseGpu {
        format: crate::run::FORMAT,
        gpus: gpus.collect(),
        foreign: attempt
            .foreign
            .iter()
            .filter(|process| process.overlaps(span.from, span.to))
            .cloned()
            .collect(),
        xids: attempt.xids.iter().filter(|xid| span.holds(xid.at)).cloned().collect(),
        gaps: attempt
            .gaps
            .iter()
            .filter(|gap| gap.from <= span.to && gap.to >= span.from)
            .cloned()
            .collect(),
    }
}

fn figures(gpu: &OwnedGpu, samples: &[&GpuSample], span: Span) -> GpuFigures {
    let inside: Vec<&GpuSample> =
        samples.iter().copied().filter(|sample| span.holds(sample.at)).collect();
    let of = |value: fn(&GpuSample) -> Option<u32>| -> Vec<f64> {
        inside.iter().filter_map(|sample| value(sample)).map(f64::from).collect()
    };
    let least = |value: fn(&GpuSample) -> Option<u32>| inside.iter().filter_map(|s| value(s)).min();
    let most = |value: fn(&GpuSample) -> Option<u32>| inside.iter().filter_map(|s| value(s)).max();
    let source = energy::source(&inside);
    let power: Vec<f64> = source.map_or_else(Vec::new, |source| {
        inside
            .iter()
            .filter_map(|s| energy::milliwatts(s, source))
            .map(|mw| f64::from(mw) / 1e3)
            .collect()
    });
    let gap = energy::largest_gap_ms(inside.iter().map(|sample| sample.at), span);
    let shares = throttle_shares(&inside);
    GpuFigures {
        uuid: gpu.uuid.clone(),
        name: gpu.name.clone(),
        samples: u64::try_from(inside.len()).unwrap_or(u64::MAX),
        largest_gap_ms: Some(gap),
        energy: energy::energy(samples, span),
        energy_integrated_j: energy::integrated(samples, span).map(|energy| energy.joules),
        power_mean_w: mean(&power),
        power_max_w: power.iter().copied().reduce(f64::max),
        power_source: source,
        power_limit_w: gpu.power_limit_w,
        power_default_w: gpu.power_default_w,
        utilisation_mean_percent: mean(&of(|sample| sample.utilisation_percent)),
        memory_used_max_bytes: inside.iter().filter_map(|sample| sample.memory_used_bytes).max(),
        temperature_start_c: inside.iter().find_map(|sample| sample.temperature_c),
        temperature_mean_c: mean(&of(|sample| sample.temperature_c)),
        temperature_max_c: most(|sample| sample.temperature_c),
        slowdown_c: gpu.slowdown_c,
        sm_clock_mean_mhz: mean(&of(|sample| sample.sm_clock_mhz)),
        sm_clock_min_mhz: least(|sample| sample.sm_clock_mhz),
        sm_clock_drift: drift(&of(|sample| sample.sm_clock_mhz)),
        memory_clock_mean_mhz: mean(&of(|sample| sample.memory_clock_mhz)),
        throttled_share: share(&inside, THROTTLED),
        slowed_down_share: share(&inside, SLOWED_DOWN),
        throttle_shares: shares,
        pcie_sent_mean_kib_s: mean(&of(|sample| sample.pcie_sent_kib_s)),
        pcie_received_mean_kib_s: mean(&of(|sample| sample.pcie_received_kib_s)),
    }
}

/// Of the samples that tell their reasons.
fn share(samples: &[&GpuSample], bits: u64) -> Option<f64> {
    let told: Vec<u64> = samples.iter().filter_map(|sample| sample.throttle_reasons).collect();
    let held = told.iter().filter(|reasons| **reasons & bits != 0).count();
    (!told.is_empty()).then(|| held as f64 / told.len() as f64)
}

fn throttle_shares(samples: &[&GpuSample]) -> BTreeMap<String, f64> {
    let seen = samples.iter().filter_map(|sample| sample.throttle_reasons).fold(0, |a, b| a | b);
    let bit = |place: u32| {
        let bit = 1_u64 << place;
        let name = throttle_names(seen & bit).into_iter().next()?;
        Some((name, share(samples, bit)?))
    };
    (0..64).filter_map(bit).collect()
}

fn drift(values: &[f64]) -> Option<f64> {
    let fifth = values.len() / 5;
    if fifth == 0 {
        return None;
    }
    let first = mean(values.get(..fifth)?)?;
    let last = mean(values.get(values.len() - fifth..)?)?;
    (first > 0.0).then(|| (last - first) / first)
}

/// All GPUs of one phase of one trial together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuTrial {
    pub(crate) gpus: u64,
    /// Of the whole phase, all GPUs; absent where it is not valid on one of them.
    pub(crate) energy_j: Option<f64>,
    pub(crate) joules_per_output_token: Option<f64>,
    pub(crate) output_tokens_per_joule: Option<f64>,
    /// All GPUs.
    pub(crate) power_mean_w: Option<f64>,
    /// Mean power as a share of the cards' own limit.
    pub(crate) power_of_tdp: Option<f64>,
    pub(crate) utilisation_mean_percent: Option<f64>,
    pub(crate) memory_used_max_bytes: Option<u64>,
    /// The warmest GPU.
    pub(crate) temperature_max_c: Option<u32>,
    /// From there to where the driver slows down.
    pub(crate) headroom_c: Option<i64>,
    pub(crate) sm_clock_mean_mhz: Option<f64>,
    /// The one that drifted most.
    pub(crate) sm_clock_drift: Option<f64>,
    /// The one that was held back longest.
    pub(crate) throttled_share: Option<f64>,
    pub(crate) slowed_down_share: Option<f64>,
}

impl GpuTrial {
    /// `output_tokens`: of the phase; absent where the server did not count.
    pub(crate) fn of(phase: &PhaseGpu, output_tokens: Option<u64>) -> Option<Self> {
        let gpus = &phase.gpus;
        if gpus.iter().all(|gpu| gpu.samples == 0) {
            return None;
        }
        let valid = |gpu: &GpuFigures| gpu.energy.as_ref().filter(|e| e.valid).map(|e| e.joules);
        let energy_j = sum(gpus.iter().map(valid));
        let tokens = output_tokens.filter(|tokens| *tokens > 0).map(count_f64);
        let power_mean_w = sum(gpus.iter().map(|gpu| gpu.power_mean_w));
        let tdp = sum(gpus.iter().map(|gpu| gpu.power_default_w));
        let most =
            |value: fn(&GpuFigures) -> Option<f64>| gpus.iter().filter_map(value).reduce(f64::max);
        let average = |value: fn(&GpuFigures) -> Option<f64>| {
            mean(&gpus.iter().filter_map(value).collect::<Vec<_>>())
        };
        let ratio =
            |a: Option<f64>, b: Option<f64>| a.zip(b).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b);
        Some(Self {
            gpus: u64::try_from(gpus.len()).unwrap_or(u64::MAX),
            energy_j,
            joules_per_output_token: ratio(energy_j, tokens),
            output_tokens_per_joule: ratio(tokens, energy_j),
            power_mean_w,
            power_of_tdp: ratio(power_mean_w, tdp),
            utilisation_mean_percent: average(|gpu| gpu.utilisation_mean_percent),
            memory_used_max_bytes: gpus.iter().filter_map(|gpu| gpu.memory_used_max_bytes).max(),
            temperature_max_c: gpus.iter().filter_map(|gpu| gpu.temperature_max_c).max(),
            headroom_c: gpus
                .iter()
                .filter_map(|gpu| {
                    Some(i64::from(gpu.slowdown_c?) - i64::from(gpu.temperature_max_c?))
                })
                .min(),
            sm_clock_mean_mhz: average(|gpu| gpu.sm_clock_mean_mhz),
            sm_clock_drift: gpus
                .iter()
                .filter_map(|gpu| gpu.sm_clock_drift)
                .max_by(|a, b| a.abs().total_cmp(&b.abs())),
            throttled_share: most(|gpu| gpu.throttled_share),
            slowed_down_share: most(|gpu| gpu.slowed_down_share),
        })
    }
}

/// `None` where one of them is absent: a part is not the whole.
fn sum(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut values = values.peekable();
    values.peek()?;
    values.try_fold(0.0, |sum, value| Some(sum + value?))
}

/// Over the trials of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GpuOverTrials {
    pub(crate) energy_j: Option<OverTrials>,
    pub(crate) joules_per_output_token: Option<OverTrials>,
    pub(crate) output_tokens_per_joule: Option<OverTrials>,
    pub(crate) power_mean_w: Option<OverTrials>,
    pub(crate) power_of_tdp: Option<OverTrials>,
    pub(crate) utilisation_mean_percent: Option<OverTrials>,
    pub(crate) sm_clock_mean_mhz: Option<OverTrials>,
    pub(crate) sm_clock_drift: Option<OverTrials>,
    pub(crate) throttled_share: Option<OverTrials>,
    pub(crate) memory_used_max_bytes: Option<u64>,
    pub(crate) temperature_max_c: Option<u32>,
    pub(crate) headroom_c: Option<i64>,
    pub(crate) gpus: u64,
}

impl GpuOverTrials {
    pub(crate) fn of<'a>(trials: impl Iterator<Item = &'a GpuTrial>) -> Option<Self> {
        let trials: Vec<&GpuTrial> = trials.collect();
        let over = |value: fn(&GpuTrial) -> Option<f64>| {
            OverTrials::of(&trials.iter().filter_map(|trial| value(trial)).collect::<Vec<_>>())
        };
        Some(Self {
            energy_j: over(|trial| trial.energy_j),
            joules_per_output_token: over(|trial| trial.joules_per_output_token),
            output_tokens_per_joule: over(|trial| trial.output_tokens_per_joule),
            power_mean_w: over(|trial| trial.power_mean_w),
            power_of_tdp: over(|trial| trial.power_of_tdp),
            utilisation_mean_percent: over(|trial| trial.utilisation_mean_percent),
            sm_clock_mean_mhz: over(|trial| trial.sm_clock_mean_mhz),
            sm_clock_drift: over(|trial| trial.sm_clock_drift),
            throttled_share: over(|trial| trial.throttled_share),
            memory_used_max_bytes: trials.iter().filter_map(|t| t.memory_used_max_bytes).max(),
            temperature_max_c: trials.iter().filter_map(|trial| trial.temperature_max_c).max(),
            headroom_c: trials.iter().filter_map(|trial| trial.headroom_c).min(),
            gpus: trials.iter().map(|trial| trial.gpus).max()?,
        })
    }

    /// The means as one trial; of heat and memory the worst.
    pub(crate) fn means(&self) -> GpuTrial {
        let mean = |over: Option<OverTrials>| over.map(|over| over.mean);
        GpuTrial {
            gpus: self.gpus,
            energy_j: mean(self.energy_j),
            joules_per_output_token: mean(self.joules_per_output_token),
            output_tokens_per_joule: mean(self.output_tokens_per_joule),
            power_mean_w: mean(self.power_mean_w),
            power_of_tdp: mean(self.power_of_tdp),
            utilisation_mean_percent: mean(self.utilisation_mean_percent),
            memory_used_max_bytes: self.memory_used_max_bytes,
            temperature_max_c: self.temperature_max_c,
            headroom_c: self.headroom_c,
            sm_clock_mean_mhz: mean(self.sm_clock_mean_mhz),
            sm_clock_drift: mean(self.sm_clock_drift),
            throttled_share: mean(self.throttled_share),
            slowed_down_share: None,
        }
    }
}

/// Energies of a phase that are not valid, or valid with a note: which GPU, and why.
pub(crate) fn notes(phase: &PhaseGpu) -> impl Iterator<Item = (&str, &Energy)> {
    phase.gpus.iter().filter_map(|gpu| {
        let energy = gpu.energy.as_ref().filter(|energy| energy.note.is_some())?;
        Some((gpu.uuid.as_str(), energy))
    })
}
