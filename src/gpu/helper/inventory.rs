//! Everything that the driver tells of a GPU.

use super::super::facts::{
    ClockMhz, Clocks, ComputeMode, Ecc, Gpu, Inventory, Memory, Mig, NvLink, Pci, Power, Process,
    ProcessKind, Temperature,
};
use super::super::fault::Fault;
use super::probe::Taker;
use super::{fault, watch};
use crate::run::gpu::throttle_names;
use nvml_wrapper::enum_wrappers::device::{
    Clock, ComputeMode as NvmlComputeMode, EccCounter, MemoryError, TemperatureSensor,
    TemperatureThreshold,
};
use nvml_wrapper::enums::device::{DeviceArchitecture, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
};
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use std::fs;

/// No card has more.
const MOST_NVLINKS: u32 = 18;
const LONGEST_COMMAND: usize = 200;

pub(super) fn all(nvml: &Nvml) -> Result<Inventory, Fault> {
    // A driver that cannot count is not a machine without GPUs.
    let count = nvml.device_count().map_err(|error| fault("counting the GPUs", &error))?;
    let cuda = nvml.sys_cuda_driver_version().ok();
    Ok(Inventory {
        driver_version: nvml.sys_driver_version().ok(),
        nvml_version: nvml.sys_nvml_version().ok(),
        cuda_version: cuda.map(|version| {
            let (major, minor) =
                (cuda_driver_version_major(version), cuda_driver_version_minor(version));
            format!("{major}.{minor}")
        }),
        gpus: (0..count)
            .map(|index| match nvml.device_by_index(index) {
                Ok(device) => Gpu { index, ..one(nvml, &device) },
                Err(error) => {
                    let error = Some(fault(&format!("GPU {index}"), &error));
                    Gpu { index, error, ..Gpu::default() }
                }
            })
            .collect(),
    })
}

/// These GPUs, in this order. One that does not answer has its error.
pub(super) fn some(nvml: &Nvml, uuids: &[String]) -> Vec<Gpu> {
    let look = |uuid: &String| match nvml.device_by_uuid(uuid.as_str()) {
        Ok(device) => Gpu { uuid: Some(uuid.clone()), ..one(nvml, &device) },
        Err(error) => {
            Gpu { uuid: Some(uuid.clone()), error: Some(fault(uuid, &error)), ..Gpu::default() }
        }
    };
    uuids.iter().map(look).collect()
}

fn one(nvml: &Nvml, device: &Device<'_>) -> Gpu {
    let mut taker = Taker::default();
    let t = &mut taker;
    let utilisation = t.take("utilisation", device.utilization_rates());
    let capability = t.take("compute capability", device.cuda_compute_capability());
    let mut gpu = Gpu {
        index: t.take("index", device.index()).unwrap_or(0),
        uuid: t.take("uuid", device.uuid()),
        error: None,
        name: t.take("name", device.name()),
        serial: t.take("serial", device.serial()),
        vbios_version: t.take("VBIOS version", device.vbios_version()),
        architecture: t.take("architecture", device.architecture()).and_then(architecture),
        compute_capability: capability.map(|c| format!("{}.{}", c.major, c.minor)),
        pci: pci(t, device),
        memory: memory(t, device),
        power: power(t, device),
        clocks: clocks(t, device),
        temperature: temperature(t, device),
        utilisation_percent: utilisation.as_ref().map(|u| u.gpu),
        memory_utilisation_percent: utilisation.as_ref().map(|u| u.memory),
        performance_state: t
            .take("performance state", device.performance_state())
            .and_then(|state| (state.as_c() < 16).then(|| format!("P{}", state.as_c()))),
        throttle_reasons: t
            .take("throttle reasons", device.current_throttle_reasons())
            .map(|reasons| throttle_names(reasons.bits())),
        ecc: ecc(t, device),
        persistence: t.take("persistence", device.is_in_persistent_mode()),
        compute_mode: t.take("compute mode", device.compute_mode()).map(compute_mode),
        mig: t
            .take("MIG mode", device.mig_mode())
            .map(|mode| Mig { enabled: mode.current == 1, enabled_after_reset: mode.pending == 1 }),
        nvlinks: nvlinks(t, device),
        processes: processes(nvml, t, device),
    };
    gpu.error = taker.lost;
    gpu
}

fn architecture(architecture: DeviceArchitecture) -> Option<String> {
    let known = !matches!(architecture, DeviceArchitecture::Unknown);
    known.then(|| architecture.to_string().to_lowercase())
}

fn pci(t: &mut Taker, device: &Device<'_>) -> Pci {
    let info = t.take("PCI", device.pci_info());
    Pci {
        device_id: info.as_ref().map(|info| format!("0x{:08x}", info.pci_device_id)),
        bus_id: info.map(|info| info.bus_id),
        link_generation: t.take("PCIe generation", device.current_pcie_link_gen()),
        link_generation_max: t.take("PCIe generation", device.max_pcie_link_gen()),
        link_width: t.take("PCIe width", device.current_pcie_link_width()),
        link_width_max: t.take("PCIe width", device.max_pcie_link_width()),
    }
}

fn memory(t: &mut Taker, device: &Device<'_>) -> Memory {
    let info = t.take("memory", device.memory_info());
    Memory {
        total_bytes: info.as_ref().map(|info| info.total),
        used_bytes: info.as_ref().map(|info| info.used),
        free_bytes: info.as_ref().map(|info| info.free),
        reserved_bytes: info.as_ref().map(|info| info.reserved),
    }
}

fn power(t: &mut Taker, device: &Device<'_>) -> Power {
    let watts = |milliwatts: Option<u32>| milliwatts.map(|value| f64::from(value) / 1e3);
    let bounds = t.take("power limits", device.power_management_limit_constraints());
    let [instant, average] = watch::power_fields(t, device);
    let energy = t.take("energy", device.total_energy_consumption());
    Power {
        usage_w: watts(t.take("power", device.power_usage())),
        instant_w: watts(instant),
        average_w: watts(average),
        limit_w: watts(t.take("power limit", device.power_management_limit())),
        limit_enforced_w: watts(t.take("power limit", device.enforced_power_limit())),
        limit_default_w: watts(t.take("power limit", device.power_management_limit_default())),
        limit_min_w: watts(bounds.as_ref().map(|bounds| bounds.min_limit)),
        limit_max_w: watts(bounds.as_ref().map(|bounds| bounds.max_limit)),
        energy_j: energy.map(|millijoules| crate::units::count_f64(millijoules) / 1e3),
    }
}

fn clocks(t: &mut Taker, device: &Device<'_>) -> Clocks {
    let mut read = |clock: fn() -> Clock| ClockMhz {
        now: t.take("clock", device.clock_info(clock())),
        max: t.take("clock", device.max_clock_info(clock())),
        application: t.take("clock", device.applications_clock(clock())),
        application_default: t.take("clock", device.default_applications_clock(clock())),
    };
    Clocks {
        graphics: read(|| Clock::Graphics),
        sm: read(|| Clock::SM),
        memory: read(|| Clock::Memory),
    }
}

fn temperature(t: &mut Taker, device: &Device<'_>) -> Temperature {
    let mut threshold = |which| t.take("threshold", device.temperature_threshold(which));
    Temperature {
        slowdown_c: threshold(TemperatureThreshold::Slowdown),
        shutdown_c: threshold(TemperatureThreshold::Shutdown),
        gpu_max_c: threshold(TemperatureThreshold::GpuMax),
        memory_max_c: threshold(TemperatureThreshold::MemoryMax),
        gpu_c: t.take("temperature", device.temperature(TemperatureSensor::Gpu)),
        // A card without the sensor may say 0.
        memory_c: watch::fields(t, device, [NVML_FI_DEV_MEMORY_TEMP])[0].filter(|c| *c > 0),
    }
}

fn ecc(t: &mut Taker, device: &Device<'_>) -> Ecc {
    let mode = t.take("ECC mode", device.is_ecc_enabled());
    let remapping =
        watch::fields(t, device, [NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_FAILURE]);
    let [pending, failed] = remapping.map(|value| value.map(|value| value != 0));
    let mut count = |kind, counter| t.take("ECC errors", device.total_ecc_errors(kind, counter));
    Ecc {
        enabled: mode.as_ref().map(|mode| mode.currently_enabled),
        enabled_after_reboot: mode.as_ref().map(|mode| mode.pending_enabled),
        corrected: count(MemoryError::Corrected, EccCounter::Volatile),
        uncorrected: count(MemoryError::Uncorrected, EccCounter::Volatile),
        corrected_ever: count(MemoryError::Corrected, EccCounter::Aggregate),
        uncorrected_ever: count(MemoryError::Uncorrected, EccCounter::Aggregate),
        retirement_pending: t.take("page retirement", device.are_pages_pending_retired()),
        remapping_pending: pending,
        remapping_failed: failed,
    }
}

fn compute_mode(mode: NvmlComputeMode) -> ComputeMode {
    match mode {
        NvmlComputeMode::Default => ComputeMode::Default,
        NvmlComputeMode::ExclusiveThread => ComputeMode::ExclusiveThread,
        NvmlComputeMode::Prohibited => ComputeMode::Prohibited,
        NvmlComputeMode::ExclusiveProcess => ComputeMode::ExclusiveProcess,
    }
}

fn nvlinks(t: &mut Taker, device: &Device<'_>) -> Option<Vec<NvLink>> {
    let mut links = Vec::new();
    for link in 0..MOST_NVLINKS {
        let wrapper = device.link_wrapper_for(link);
        // The first link that is refused is one that the card does not have.
        let Some(active) = t.take("NVLink", wrapper.is_active()) else { break };
        let version = active.then(|| t.take("NVLink", wrapper.version())).flatten();
        links.push(NvLink { link, active, version });
    }
    (!links.is_empty()).then_some(links)
}

fn processes(nvml: &Nvml, t: &mut Taker, device: &Device<'_>) -> Option<Vec<Process>> {
    let compute = compute_processes(t, device)?;
    let graphics = t.take("graphics processes", device.running_graphics_processes());
    let name = |kind| move |info: ProcessInfo| describe(nvml, &info, kind);
    let mut all: Vec<Process> = compute.into_iter().map(name(ProcessKind::Compute)).collect();
    // A process that computes and draws is in both lists.
    let drawing = graphics.unwrap_or_default().into_iter().map(name(ProcessKind::Graphics));
    for process in drawing {
        if !all.iter().any(|other| other.pid == process.pid) {
            all.push(process);
        }
    }
    Some(all)
}

/// The list may grow between the two calls that it takes.
pub(super) fn compute_processes(t: &mut Taker, device: &Device<'_>) -> Option<Vec<ProcessInfo>> {
    let ask = || match device.running_compute_processes() {
        Err(NvmlError::InsufficientSize(_)) => device.running_compute_processes(),
        other => other,
    };
    t.take("compute processes", ask())
}

pub(super) fn memory_of(info: &ProcessInfo) -> Option<u64> {
    match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    }
}

fn describe(nvml: &Nvml, info: &ProcessInfo, kind: ProcessKind) -> Process {
    let line = fs::read(format!("/proc/{}/cmdline", info.pid)).unwrap_or_default();
    let words = String::from_utf8_lossy(&line).replace('\0', " ");
    let command = Some(words.trim().chars().take(LONGEST_COMMAND).collect::<String>())
        .filter(|command| !command.is_empty())
        .or_else(|| nvml.sys_process_name(info.pid, LONGEST_COMMAND).ok());
    Process {
        pid: info.pid,
        kind,
        memory_bytes: memory_of(info),
        user: owner(info.pid),
        command: command.filter(|command| !command.is_empty()),
    }
}

fn owner(pid: u32) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    Some(user.map_or_else(|| uid.to_string(), |user| user.name))
}
