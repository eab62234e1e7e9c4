//! The machine, as a report names it.

use serde::{Deserialize, Serialize};
use sysinfo::System;

/// Facts of the host; what cannot be read is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostFacts {
    pub(crate) format: u32,
    pub(crate) sweepd_version: String,
    pub(crate) host_name: Option<String>,
    pub(crate) operating_system: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) cpu: Option<String>,
    pub(crate) cpus: Option<usize>,
    pub(crate) memory_bytes: Option<u64>,
}

pub(crate) fn read() -> HostFacts {
    let mut system = System::new().ok();
    if let Some(system) = &mut system {
        system.refresh_memory();
        system.refresh_cpu_all();
    }
    let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
    let brand = cpus.first().map(|cpu| cpu.brand().trim().to_owned());
    HostFacts {
        format: crate::run::FORMAT,
        sweepd_version: env!("CARGO_PKG_VERSION").to_owned(),
        host_name: System::host_name().ok(),
        operating_system: System::long_os_version().ok(),
        kernel: System::kernel_version().ok(),
        cpu: brand.filter(|brand| !brand.is_empty()),
        cpus: Some(cpus.len()).filter(|count| *count > 0),
        memory_bytes: system.as_ref().map(System::total_memory).filter(|bytes| *bytes > 0),
    }
}
