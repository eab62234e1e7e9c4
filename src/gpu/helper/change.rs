//! Changes one setting of one GPU.

use super::super::facts::ComputeMode;
use super::super::fault::Fault;
use super::super::message::Change;
use super::fault;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::ComputeMode as NvmlComputeMode;
use nvml_wrapper::enums::device::GpuLockedClocksSetting;

pub(super) fn apply(nvml: &Nvml, uuid: &str, change: Change) -> Result<(), Fault> {
    let mut device = nvml.device_by_uuid(uuid).map_err(|error| fault(uuid, &error))?;
    let numeric = |min_clock_mhz, max_clock_mhz| GpuLockedClocksSetting::Numeric {
        min_clock_mhz,
        max_clock_mhz,
    };
    let (doing, result) = match change {
        Change::LockGpuClocks { min_mhz, max_mhz } => {
            ("locking the GPU's clocks", device.set_gpu_locked_clocks(numeric(min_mhz, max_mhz)))
        }
        Change::ResetGpuClocks => ("unlocking the GPU's clocks", device.reset_gpu_locked_clocks()),
        Change::LockMemoryClocks { min_mhz, max_mhz } => {
            ("locking the memory's clocks", device.set_mem_locked_clocks(min_mhz, max_mhz))
        }
        Change::ResetMemoryClocks => {
            ("unlocking the memory's clocks", device.reset_mem_locked_clocks())
        }
        Change::PowerLimit { milliwatts } => {
            ("setting the power limit", device.set_power_management_limit(milliwatts))
        }
        Change::Persistence { on } => ("setting persistence mode", device.set_persistent(on)),
        Change::ComputeMode { mode } => {
            let mode = match mode {
                ComputeMode::Default => NvmlComputeMode::Default,
                ComputeMode::ExclusiveThread => NvmlComputeMode::ExclusiveThread,
                ComputeMode::Prohibited => NvmlComputeMode::Prohibited,
                ComputeMode::ExclusiveProcess => NvmlComputeMode::ExclusiveProcess,
            };
            ("setting the compute mode", device.set_compute_mode(mode))
        }
    };
    result.map_err(|error| fault(&format!("{doing} of {uuid}"), &error))
}
