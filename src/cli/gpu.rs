//! `sweepd gpu`: the machine's GPUs, who is on them, and who has leased them.
#![expect(clippy::print_stdout, reason = "the inventory is what it prints")]

use super::client::block_on;
use super::input;
use crate::gpu::client::Client;
use crate::gpu::facts::{Gpu, Inventory};
use crate::gpu::fault::Fault;
use crate::gpu::lease::{Holder, Leases, Quarantine};
use crate::ids::wire_name;
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct GpuArguments {
    /// As JSON. What the driver does not offer is null.
    #[arg(long)]
    json: bool,
}

/// The whole answer. `state` is `ok` or the kind of what is in the way.
#[derive(Serialize)]
struct Shown {
    state: String,
    detail: Option<String>,
    advice: Option<&'static str>,
    /// The library that was asked, when it is not the system's.
    library: Option<String>,
    driver_version: Option<String>,
    nvml_version: Option<String>,
    cuda_version: Option<String>,
    gpus: Vec<Owned>,
}

/// A GPU, and what sweepd has to do with it.
#[derive(Serialize)]
struct Owned {
    #[serde(flatten)]
    gpu: Gpu,
    lease: Option<Holder>,
    quarantine: Option<Quarantine>,
}

/// Exit code 1 where there is no GPU to show, or one of them does not answer.
pub(super) fn run(arguments: &GpuArguments) -> anyhow::Result<ExitCode> {
    let nvml = input::nvml();
    let library = nvml.library.as_ref().map(|path| path.display().to_string());
    let result = block_on(async { Ok(Client::new(nvml).inventory().await) })?;
    let leases = Leases::at(&input::shared_folder());
    let well = result.as_ref().is_ok_and(|inventory| {
        !inventory.gpus.is_empty() && inventory.gpus.iter().all(|gpu| gpu.error.is_none())
    });
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&shown(result, library, &leases))?);
    } else {
        match &result {
            Ok(inventory) => print!("{}", people(inventory, &leases)),
            Err(fault) => println!("no GPU telemetry: {fault}\n  {}", fault.advice()),
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn shown(result: Result<Inventory, Fault>, library: Option<String>, leases: &Leases) -> Shown {
    let fault = result.as_ref().err().cloned();
    let inventory = result.unwrap_or_default();
    let owned = |gpu: Gpu| Owned {
        lease: gpu.uuid.as_ref().and_then(|uuid| leases.holder(uuid)),
        quarantine: gpu.uuid.as_ref().and_then(|uuid| leases.quarantined(uuid)),
        gpu,
    };
    Shown {
        state: fault.as_ref().map_or_else(|| "ok".to_owned(), |fault| wire_name(&fault.kind)),
        advice: fault.as_ref().map(Fault::advice),
        detail: fault.map(|fault| fault.to_string()),
        library,
        driver_version: inventory.driver_version,
        nvml_version: inventory.nvml_version,
        cuda_version: inventory.cuda_version,
        gpus: inventory.gpus.into_iter().map(owned).collect(),
    }
}

fn people(inventory: &Inventory, leases: &Leases) -> String {
    let dash = || "-".to_owned();
    let mut out = format!(
        "driver {}, CUDA {}, NVML {}\n",
        inventory.driver_version.clone().unwrap_or_else(dash),
        inventory.cuda_version.clone().unwrap_or_else(dash),
        inventory.nvml_version.clone().unwrap_or_else(dash),
    );
    if inventory.gpus.is_empty() {
        out.push_str("the driver knows of no GPU\n");
    }
    for gpu in &inventory.gpus {
        let lines = one(gpu, leases);
        out.push_str(&lines.join("\n    "));
        out.push('\n');
    }
    out
}

/// One GPU in a few lines; what is absent is a dash.
fn one(gpu: &Gpu, leases: &Leases) -> Vec<String> {
    let uuid = gpu.uuid.as_deref().unwrap_or("-");
    let mut lines =
        vec![format!("{}  {}  {uuid}", gpu.index, gpu.name.as_deref().unwrap_or("unknown GPU"))];
    if let Some(fault) = &gpu.error {
        lines.push(format!("{fault}: {}", fault.advice()));
        return lines;
    }
    lines.push(format!(
        "PCI {}, gen {}/{} x{}/{}, compute capability {}, {}",
        text(gpu.pci.bus_id.as_ref()),
        text(gpu.pci.link_generation),
        text(gpu.pci.link_generation_max),
        text(gpu.pci.link_width),
        text(gpu.pci.link_width_max),
        text(gpu.compute_capability.as_ref()),
        text(gpu.architecture.as_ref()),
    ));
    let gib = |bytes: Option<u64>| {
        bytes.map(|b| format!("{:.1}", crate::units::count_f64(b) / f64::from(1 << 30)))
    };
    lines.push(format!(
        "memory {} of {} GiB used, utilisation {} %, {}",
        text(gib(gpu.memory.used_bytes)),
        text(gib(gpu.memory.total_bytes)),
        text(gpu.utilisation_percent),
        text(gpu.performance_state.as_ref()),
    ));
    lines.push(format!(
        "power {} W, limit {} W (default {}, {} to {}); temperature {} C, slowdown {}, shutdown {}",
        text(gpu.power.instant_w.or(gpu.power.usage_w)),
        text(gpu.power.limit_w),
        text(gpu.power.limit_default_w),
        text(gpu.power.limit_min_w),
        text(gpu.power.limit_max_w),
        text(gpu.temperature.gpu_c),
        text(gpu.temperature.slowdown_c),
        text(gpu.temperature.shutdown_c),
    ));
    let reasons = gpu.throttle_reasons.as_ref().map(|reasons| match reasons.as_slice() {
        [] => "none".to_owned(),
        some => some.join(", "),
    });
    lines.push(format!(
        "SM clock {} of {} MHz (application {}), memory clock {} of {} MHz, throttled by: {}",
        text(gpu.clocks.sm.now),
        text(gpu.clocks.sm.max),
        text(gpu.clocks.sm.application),
        text(gpu.clocks.memory.now),
        text(gpu.clocks.memory.max),
        text(reasons),
    ));
    lines.push(modes(gpu));
    lines.extend(gpu.processes.iter().flatten().map(|process| {
        format!(
            "{} process {process}: {} GiB",
            wire_name(&process.kind),
            text(gib(process.memory_bytes))
        )
    }));
    if gpu.processes.is_none() {
        lines.push("the driver does not tell which processes are on it".to_owned());
    }
    if let Some(holder) = leases.holder(uuid) {
        lines.push(format!("leased by {holder}"));
    }
    if let Some(why) = leases.quarantined(uuid) {
        lines.push(format!("quarantined since {}: {}", why.since, why.diagnosis));
    }
    lines
}

fn modes(gpu: &Gpu) -> String {
    let on = |value: Option<bool>| value.map(|on| if on { "on" } else { "off" });
    let links = gpu.nvlinks.as_ref().map(|links| {
        let active = links.iter().filter(|link| link.active).count();
        format!("{active} of {} active", links.len())
    });
    format!(
        "ECC {} ({} corrected, {} uncorrected), persistence {}, compute mode {}, MIG {}, NVLink {}",
        text(on(gpu.ecc.enabled)),
        text(gpu.ecc.corrected),
        text(gpu.ecc.uncorrected),
        text(on(gpu.persistence)),
        text(gpu.compute_mode.as_ref().map(wire_name)),
        text(on(gpu.mig.map(|mig| mig.enabled))),
        text(links),
    )
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
