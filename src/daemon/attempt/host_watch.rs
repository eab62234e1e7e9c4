//! The host's load beside an attempt: a sample each second or two, and each phase's own in its files.

use crate::clock;
use crate::run::host::HostSample;
use crate::run::phase::PhaseFacts;
use crate::sample::load::{Groups, HostSampler, Usage};
use crate::stats::host;
use crate::store::dirs::AttemptDir;
use crate::supervise::tree::{self, Process};
use crate::units::MonoNs;
use rustix::param::{clock_ticks_per_second, page_size};
use std::time::Duration;

/// Ticks also come with changes of state; rates over less are noise.
const LEAST: Duration = Duration::from_millis(700);

#[derive(Debug)]
pub(super) struct HostWatch {
    sampler: HostSampler,
    dir: AttemptDir,
    last: Option<MonoNs>,
    samples: Vec<HostSample>,
}

impl HostWatch {
    pub(super) fn new(dir: &AttemptDir) -> Self {
        Self { sampler: HostSampler::new(), dir: dir.clone(), last: None, samples: Vec::new() }
    }

    pub(super) fn tick(&mut self, groups: &Groups<Usage>) {
        let now = clock::now();
        if self.last.is_some_and(|last| now.since(last) < LEAST) {
            return;
        }
        self.last = Some(now);
        self.samples.extend(self.sampler.sample(groups));
    }

    /// A phase has ended: its samples become a file. What went wrong, in words.
    pub(super) fn keep(&self, facts: &PhaseFacts) -> Result<(), String> {
        let inside: Vec<HostSample> = self
            .samples
            .iter()
            .filter(|sample| facts.started <= sample.at && sample.at <= facts.ended)
            .copied()
            .collect();
        let figures = host::of_phase(&inside, facts, self.sampler.cpus());
        self.dir
            .write_phase_host(&facts.phase, &inside, figures.as_ref())
            .map_err(|error| error.to_string())
    }
}

/// Everything below this sweepd that is not the engine is its own: the load process apart. `all`: a
/// snapshot of the machine's processes; `engine`: those of the attempt.
pub(super) fn groups(all: &[Process], engine: Vec<Process>) -> Groups<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let is_engines = |process: &Process| engine.iter().any(|other| other.pid == process.pid);
    let mut below = tree::descendants(all, own);
    below.retain(|process| !is_engines(process));
    below.extend(all.iter().find(|process| process.pid == own).cloned());
    let (client, sweepd) = below.into_iter().partition(|process| is_client(process.pid));
    Groups { engine, client, sweepd }
}

/// What a process that was seen earlier has used by now; `None` when it is gone.
pub(super) fn usage(seen: &Process) -> Option<Usage> {
    let now = tree::read(seen.pid).filter(|now| now.start_ticks == seen.start_ticks)?;
    Some(Usage {
        pid: now.pid,
        cpu_ms: now.cpu_ticks.saturating_mul(1000) / clock_ticks_per_second().max(1),
        resident_bytes: now.resident_pages.saturating_mul(page_size().try_into().unwrap_or(0)),
    })
}

fn is_client(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"__load")
}
