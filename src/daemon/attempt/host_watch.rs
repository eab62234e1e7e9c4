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

/// Everything below this sweepd that is not the engine is its own, but for the load process and for
/// what runs beside: other load processes, and what is below other guards. `all`: a snapshot of the
/// machine's processes; `guard` and `client`: those of the attempt.
pub(super) fn groups(all: &[Process], guard: i32, client: Option<i32>) -> Groups<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let engine = tree::descendants(all, guard);
    let mut groups = Groups { engine, client: Vec::new(), sweepd: Vec::new(), beside: Vec::new() };
    let others = all.iter().filter(|process| process.parent == own && process.pid != guard);
    for other in others.filter(|process| role(process.pid).as_deref() == Some(b"__guard")) {
        groups.beside.extend(tree::descendants(all, other.pid));
    }
    for process in tree::descendants(all, own) {
        let mut known = groups.engine.iter().chain(&groups.beside);
        if known.any(|other| other.pid == process.pid) {
            continue;
        }
        match role(process.pid).as_deref() {
            Some(b"__load") if client == Some(process.pid) => groups.client.push(process),
            Some(b"__load") => groups.beside.push(process),
            _ => groups.sweepd.push(process),
        }
    }
    groups.sweepd.extend(all.iter().find(|process| process.pid == own).cloned());
    groups
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

/// What a process of this same executable is.
fn role(pid: i32) -> Option<Vec<u8>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    line.split(|byte| *byte == 0).nth(1).map(<[u8]>::to_vec)
}
