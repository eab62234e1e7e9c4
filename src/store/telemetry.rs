//! `telemetry.parquet` and `gpu_processes.parquet`: what was sampled of the GPUs around a phase.
//!
//! Samples from some seconds before the phase to some after it, its parts marked by `in_phase` and
//! `in_steady_window`. Power has a column for each source.

use super::files::StoreError;
use super::flat::{self, FlatColumn, Values};
use crate::run::gpu::{GpuSample, SLOWED_DOWN, THROTTLED};
use crate::run::phase::PhaseFacts;
use std::path::Path;

/// Before and after the phase.
const MARGIN_NS: i64 = 2_000_000_000;

pub(crate) fn write(
    folder: &Path,
    samples: &[GpuSample],
    facts: &PhaseFacts,
) -> Result<(), StoreError> {
    let around = |sample: &&GpuSample| {
        sample.at.since_ns(facts.started) >= -MARGIN_NS
            && facts.ended.since_ns(sample.at) >= -MARGIN_NS
    };
    let samples: Vec<&GpuSample> = samples.iter().filter(around).collect();
    let integers = |name: &str, value: &dyn Fn(&GpuSample) -> Option<i64>| {
        FlatColumn::new(name, Values::Integers(samples.iter().map(|s| value(s)).collect()))
    };
    let flags = |name: &str, value: &dyn Fn(&GpuSample) -> Option<bool>| {
        FlatColumn::new(name, Values::Flags(samples.iter().map(|s| value(s)).collect()))
    };
    let small = |value: Option<u32>| value.map(i64::from);
    let large = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    let is_steady = |s: &GpuSample| {
        Some(facts.full_at.is_some_and(|full| full <= s.at) && s.at <= facts.stopped_at)
    };
    let columns = [
        integers("at_ns", &|s| Some(s.at.get())),
        integers("gpu", &|s| Some(s.gpu.into())),
        flags("in_phase", &|s| Some(facts.started <= s.at && s.at <= facts.ended)),
        flags("in_steady_window", &is_steady),
        integers("power_usage_mw", &|s| small(s.power_usage_mw)),
        integers("power_instant_mw", &|s| small(s.power_instant_mw)),
        integers("power_average_mw", &|s| small(s.power_average_mw)),
        integers("energy_mj", &|s| large(s.energy_mj)),
        integers("utilisation_percent", &|s| small(s.utilisation_percent)),
        integers("memory_utilisation_percent", &|s| small(s.memory_utilisation_percent)),
        integers("memory_used_bytes", &|s| large(s.memory_used_bytes)),
        integers("temperature_c", &|s| small(s.temperature_c)),
        integers("sm_clock_mhz", &|s| small(s.sm_clock_mhz)),
        integers("memory_clock_mhz", &|s| small(s.memory_clock_mhz)),
        integers("throttle_reasons", &|s| large(s.throttle_reasons)),
        flags("throttled", &|s| s.throttle_reasons.map(|reasons| reasons & THROTTLED != 0)),
        flags("slowed_down", &|s| s.throttle_reasons.map(|reasons| reasons & SLOWED_DOWN != 0)),
        integers("pcie_sent_kib_s", &|s| small(s.pcie_sent_kib_s)),
        integers("pcie_received_kib_s", &|s| small(s.pcie_received_kib_s)),
    ];
    flat::write(&folder.join("telemetry.parquet"), &columns)?;
    processes(folder, &samples)
}

fn processes(folder: &Path, samples: &[&GpuSample]) -> Result<(), StoreError> {
    let rows: Vec<_> = samples
        .iter()
        .flat_map(|sample| sample.processes.iter().flatten().map(move |process| (sample, process)))
        .collect();
    let integers =
        |name: &str, values: Vec<Option<i64>>| FlatColumn::new(name, Values::Integers(values));
    let memory = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let columns = [
        integers("at_ns", rows.iter().map(|(sample, _)| Some(sample.at.get())).collect()),
        integers("gpu", rows.iter().map(|(sample, _)| Some(sample.gpu.into())).collect()),
        integers("pid", rows.iter().map(|(_, process)| Some(process.pid.into())).collect()),
        integers(
            "memory_bytes",
            rows.iter().map(|(_, process)| memory(process.memory_bytes)).collect(),
        ),
    ];
    flat::write(&folder.join("gpu_processes.parquet"), &columns)
}
