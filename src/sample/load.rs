//! The host's load, with the CPU of engine, client and sweepd apart from the rest.

use crate::clock;
use crate::run::host::HostSample;
use crate::units::{MonoNs, count_f64, ns_to_ms};
use std::collections::HashMap;
use sysinfo::{DiskRefreshKind, Disks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Whose processes are whose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    pub(crate) engine: Vec<i32>,
    pub(crate) client: Vec<i32>,
    pub(crate) sweepd: Vec<i32>,
}

/// Takes one sample after another; rates are between two of them.
#[derive(Debug)]
pub(crate) struct HostSampler {
    /// `None` where the system cannot be read.
    system: Option<System>,
    disks: Option<Disks>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    at: MonoNs,
    /// CPU milliseconds of each process that was there.
    cpu_ms: HashMap<i32, u64>,
}

impl HostSampler {
    pub(crate) fn new() -> Self {
        let mut sampler = Self {
            system: System::new().ok(),
            disks: Disks::new_with_refreshed_list().ok(),
            last: None,
        };
        if let Some(system) = &mut sampler.system {
            system.refresh_cpu_usage();
        }
        sampler
    }

    pub(crate) fn cpus(&self) -> u64 {
        let cpus = self.system.as_ref().map_or(0, |system| system.cpus().len());
        u64::try_from(cpus).unwrap_or(0)
    }

    /// `None` for the first, which has nothing to be compared with, and where nothing can be read.
    pub(crate) fn sample(&mut self, groups: &Groups) -> Option<HostSample> {
        let cpus = count_f64(self.cpus());
        let system = self.system.as_mut()?;
        let at = clock::now();
        system.refresh_cpu_usage();
        system.refresh_memory();
        let all: Vec<i32> =
            groups.engine.iter().chain(&groups.client).chain(&groups.sweepd).copied().collect();
        let pids: Vec<Pid> =
            all.iter().filter_map(|pid| u32::try_from(*pid).ok().map(Pid::from_u32)).collect();
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&pids),
            true,
            ProcessRefreshKind::nothing().with_cpu(),
        );
        let time = |pid: &i32| {
            let process = system.process(Pid::from_u32(u32::try_from(*pid).ok()?))?;
            Some((*pid, process.accumulated_cpu_time()))
        };
        let cpu_ms: HashMap<i32, u64> = all.iter().filter_map(time).collect();
        if let Some(disks) = &mut self.disks {
            // Without looking for new ones, which costs more than all the rest.
            for disk in disks.iter_mut() {
                disk.refresh_specifics(DiskRefreshKind::nothing().with_io_usage());
            }
        }
        let last = self.last.replace(Last { at, cpu_ms })?;
        let now = self.last.as_ref()?;
        let passed_ms = ns_to_ms(at.since_ns(last.at));
        let cores = |pids: &[i32]| {
            let grown = |pid: &i32| {
                let before = last.cpu_ms.get(pid).copied().unwrap_or(0);
                Some(now.cpu_ms.get(pid)?.saturating_sub(before))
            };
            let sum: u64 = pids.iter().filter_map(grown).sum();
            (passed_ms > 0.0).then(|| count_f64(sum) / passed_ms)
        };
        let system = self.system.as_ref()?;
        let usage = self.disks.iter().flat_map(|disks| disks.iter()).map(sysinfo::Disk::usage);
        let (read, written) =
            usage.fold((0, 0), |(r, w), u| (r + u.read_bytes, w + u.written_bytes));
        Some(HostSample {
            at,
            busy_cores: Some(f64::from(system.global_cpu_usage()) / 100.0 * cpus),
            engine_cores: cores(&groups.engine),
            client_cores: cores(&groups.client),
            sweepd_cores: cores(&groups.sweepd),
            memory_available_bytes: Some(system.available_memory()),
            swap_used_bytes: Some(system.used_swap()),
            load_1min: System::load_average().ok().map(|load| load.one),
            disk_read_bytes: self.disks.as_ref().map(|_| read),
            disk_written_bytes: self.disks.as_ref().map(|_| written),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No other test of this process burns as much.
    #[test]
    fn a_group_that_works_is_seen_working() {
        let mut burner =
            std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = i32::try_from(burner.id()).unwrap();
        let groups = Groups { engine: vec![pid], ..Groups::default() };
        let mut sampler = HostSampler::new();
        assert_eq!(sampler.sample(&groups), None);
        let until = clock::now().plus(std::time::Duration::from_secs(20));
        let seen = loop {
            let sample = sampler.sample(&groups).unwrap();
            if sample.engine_cores.is_some_and(|cores| cores > 0.05) || clock::now() > until {
                break sample;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        burner.kill().unwrap();
        burner.wait().unwrap();
        assert!(seen.engine_cores.is_some_and(|cores| cores > 0.05 && cores < 3.0), "{seen:?}");
        assert_eq!(seen.client_cores, Some(0.0));
        assert!(seen.memory_available_bytes.is_some_and(|bytes| bytes > 0));
    }
}
