//! The host's load, with the CPU of engine, client and sweepd apart from the rest.

use crate::clock;
use crate::run::host::HostSample;
use crate::units::{MonoNs, count_f64, ns_to_ms};
use std::collections::HashMap;
use sysinfo::{DiskRefreshKind, Disks, System};

/// What one process has used so far, and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) pid: i32,
    pub(crate) cpu_ms: u64,
    pub(crate) resident_bytes: u64,
}

/// Whose processes are whose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups<P> {
    pub(crate) engine: Vec<P>,
    pub(crate) client: Vec<P>,
    pub(crate) sweepd: Vec<P>,
    /// Engines and clients of trials that run beside this one.
    pub(crate) beside: Vec<P>,
}

impl<P> Groups<P> {
    /// The same groups of something else; what becomes nothing is left out.
    pub(crate) fn map<Q>(&self, mut to: impl FnMut(&P) -> Option<Q>) -> Groups<Q> {
        let mut all = |list: &[P]| list.iter().filter_map(&mut to).collect();
        Groups {
            engine: all(&self.engine),
            client: all(&self.client),
            sweepd: all(&self.sweepd),
            beside: all(&self.beside),
        }
    }
}

/// The resident size summed over processes; `None` where there are none. A page that two of them
/// share counts twice, as the report says.
pub(crate) fn resident_bytes(processes: &[Usage]) -> Option<u64> {
    let bytes: u64 = processes.iter().map(|process| process.resident_bytes).sum();
    (bytes > 0).then_some(bytes)
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
    pub(crate) fn sample(&mut self, groups: &Groups<Usage>) -> Option<HostSample> {
        let cpus = count_f64(self.cpus());
        let system = self.system.as_mut()?;
        let at = clock::now();
        system.refresh_cpu_usage();
        system.refresh_memory();
        if let Some(disks) = &mut self.disks {
            // Without looking for new ones, which costs more than all the rest.
            for disk in disks.iter_mut() {
                disk.refresh_specifics(DiskRefreshKind::nothing().with_io_usage());
            }
        }
        let Groups { engine, client, sweepd, beside } = groups;
        let all = engine.iter().chain(client).chain(sweepd).chain(beside);
        let cpu_ms = all.map(|process| (process.pid, process.cpu_ms)).collect();
        let last = self.last.replace(Last { at, cpu_ms })?;
        let passed_ms = ns_to_ms(at.since_ns(last.at));
        // Whoever began beside since the last look at the processes is not known for how long.
        let known = |process: &&Usage| last.cpu_ms.contains_key(&process.pid);
        let beside: Vec<Usage> = beside.iter().filter(known).copied().collect();
        let cores = |processes: &[Usage]| {
            let grown = |process: &Usage| {
                let before = last.cpu_ms.get(&process.pid).copied().unwrap_or(0);
                process.cpu_ms.saturating_sub(before)
            };
            let sum: u64 = processes.iter().map(grown).sum();
            (passed_ms > 0.0).then(|| count_f64(sum) / passed_ms)
        };
        let system = self.system.as_ref()?;
        let usage = self.disks.iter().flat_map(|disks| disks.iter()).map(sysinfo::Disk::usage);
        let (read, written) =
            usage.fold((0, 0), |(r, w), u| (r + u.read_bytes, w + u.written_bytes));
        Some(HostSample {
            at,
            busy_cores: Some(f64::from(system.global_cpu_usage()) / 100.0 * cpus),
            engine_cores: cores(engine),
            client_cores: cores(client),
            sweepd_cores: cores(sweepd),
            beside_cores: cores(&beside),
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

    fn group(cpu_ms: u64) -> Groups<Usage> {
        let engine = vec![Usage { pid: 7, cpu_ms, resident_bytes: 3 }];
        Groups { engine, client: Vec::new(), sweepd: Vec::new(), beside: Vec::new() }
    }

    #[test]
    fn cores_are_what_a_group_has_used_since_the_sample_before() {
        let mut sampler = HostSampler::new();
        let began = clock::now();
        assert_eq!(sampler.sample(&group(1_000_000)), None);
        let seen = sampler.sample(&group(1_000_500)).unwrap();
        // 500 ms of CPU in no more time than has passed.
        let least = 500.0 / ns_to_ms(clock::now().since_ns(began));
        assert!(seen.engine_cores.is_some_and(|cores| cores >= least), "{least}: {seen:?}");
        assert_eq!(seen.client_cores, Some(0.0));
        assert!(seen.memory_available_bytes.is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn memory_of_nobody_is_absent() {
        assert_eq!(resident_bytes(&[]), None);
        assert_eq!(resident_bytes(&group(0).engine), Some(3));
    }
}
