//! Host memory of an engine: the resident size summed over its processes.
//!
//! A page shared by two of its processes counts twice, as the report says.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Samples one set of processes again and again.
#[derive(Debug)]
pub(crate) struct MemorySampler {
    /// `None` where the system cannot be read: then there is no figure.
    system: Option<System>,
    peak_bytes: Option<u64>,
}

impl MemorySampler {
    pub(crate) fn new() -> Self {
        Self { system: System::new().ok(), peak_bytes: None }
    }

    /// Takes one sample of these processes.
    pub(crate) fn sample(&mut self, pids: &[i32]) {
        let Some(system) = &mut self.system else { return };
        let pids: Vec<Pid> =
            pids.iter().filter_map(|pid| u32::try_from(*pid).ok().map(Pid::from_u32)).collect();
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&pids),
            true,
            ProcessRefreshKind::nothing().with_memory(),
        );
        let bytes: u64 =
            pids.iter().filter_map(|pid| system.process(*pid)).map(|p| p.memory()).sum();
        if bytes > 0 {
            self.peak_bytes = self.peak_bytes.max(Some(bytes));
        }
    }

    /// The highest sample; `None` if there was none.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        self.peak_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sample_is_absent_and_a_sample_of_this_process_is_plausible() {
        let mut sampler = MemorySampler::new();
        sampler.sample(&[]);
        assert_eq!(sampler.peak_bytes(), None);
        sampler.sample(&[i32::try_from(std::process::id()).unwrap()]);
        assert!(sampler.peak_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
