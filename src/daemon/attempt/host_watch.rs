//! The host's load beside an attempt: one sample a second, and each phase's own in its files.

use crate::clock;
use crate::run::host::HostSample;
use crate::run::phase::PhaseFacts;
use crate::sample::load::{Groups, HostSampler};
use crate::stats::host;
use crate::store::dirs::AttemptDir;
use crate::supervise::tree::{self, Process};
use crate::units::MonoNs;
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

    pub(super) fn tick(&mut self, groups: &Groups) {
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
pub(super) fn groups(all: &[Process], engine: &[Process]) -> Groups {
    let pids = |list: &[Process]| list.iter().map(|process| process.pid).collect::<Vec<_>>();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let engine = pids(engine);
    let below: Vec<Process> = tree::descendants(all, own)
        .into_iter()
        .filter(|process| !engine.contains(&process.pid))
        .collect();
    let (client, mut sweepd): (Vec<i32>, Vec<i32>) =
        pids(&below).into_iter().partition(|pid| is_client(*pid));
    sweepd.push(own);
    Groups { engine, client, sweepd }
}

fn is_client(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"__load")
}
