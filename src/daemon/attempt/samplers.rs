//! What is sampled beside an attempt. Every sampler begins and ends here, and nowhere else.
//!
//! A sampler never decides how an attempt goes on and never makes the event loop wait: what takes
//! time runs in a task of its own, which begins at one of the moments below and ends in `settle`.

use super::AttemptPlan;
use super::asking::Asking;
use super::host_watch::{HostWatch, groups, usage};
use crate::clock;
use crate::load::message::LoadPlan;
use crate::run::effective::EffectiveConfig;
use crate::run::phase::PhaseFacts;
use crate::run::signal::{Signal, Source};
use crate::sample::load::{self, Groups, Usage};
use crate::store::dirs::AttemptDir;
use crate::supervise::tree::{self, Process};
use crate::units::MonoNs;
use std::time::Duration;

/// How often `tick` is called.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How old a snapshot of the processes may be: reading it each second would cost more than all the rest.
const SNAPSHOT: Duration = Duration::from_secs(10);
const SNAPSHOT_SETTLED: Duration = Duration::from_secs(30);
/// After so long without a change the host is looked at on every second tick: the phase has samples
/// enough, and each costs sweepd the same.
const SETTLED: Duration = Duration::from_secs(10);

/// The samplers of one attempt.
pub(super) struct Samplers {
    peak_memory_bytes: Option<u64>,
    host: HostWatch,
    asking: Asking,
    processes: Option<Processes>,
    /// A phase that is measured is under way: the host's load is kept for those alone.
    measuring: bool,
    /// The last change, of state or load.
    changed: MonoNs,
    rests: bool,
    /// The load process.
    client: Option<i32>,
    /// Samples that could not be kept.
    problems: Vec<String>,
}

/// A snapshot of the machine's processes.
struct Processes {
    at: MonoNs,
    groups: Groups<Process>,
}

/// What they came to.
#[derive(Debug)]
pub(super) struct Sampled {
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) effective: Option<EffectiveConfig>,
    /// Samples that could not be kept.
    pub(super) problems: Vec<String>,
}

impl Samplers {
    /// The guard runs; the engine is being launched.
    pub(super) fn begin(plan: &AttemptPlan, dir: &AttemptDir) -> Self {
        Self {
            peak_memory_bytes: None,
            host: HostWatch::new(dir),
            asking: Asking::new(plan, dir),
            processes: None,
            measuring: false,
            changed: clock::now(),
            rests: false,
            client: None,
            problems: Vec::new(),
        }
    }

    /// Once a second.
    pub(super) fn tick(&mut self, guard: Option<i32>) {
        self.asking.ask();
        self.rests = !self.rests && clock::now().since(self.changed) > SETTLED;
        if !self.rests {
            self.look(guard);
        }
    }

    fn look(&mut self, guard: Option<i32>) {
        let Some(guard) = guard else { return };
        let now = clock::now();
        let settled = now.since(self.changed) > SETTLED;
        let most = if settled { SNAPSHOT_SETTLED } else { SNAPSHOT };
        let recent = |seen: &Processes| now.since(seen.at) < most;
        let seen = self.processes.take().filter(recent).unwrap_or_else(|| {
            let all = tree::all();
            Processes { at: now, groups: groups(&all, guard, self.client) }
        });
        if self.measuring {
            let used = seen.groups.map(usage);
            self.note_memory(&used.engine);
            self.host.tick(&used);
        } else {
            let engine: Vec<_> = seen.groups.engine.iter().filter_map(usage).collect();
            self.note_memory(&engine);
        }
        self.processes = Some(seen);
    }

    fn note_memory(&mut self, engine: &[Usage]) {
        self.peak_memory_bytes = self.peak_memory_bytes.max(load::resident_bytes(engine));
    }

    /// At each change of state while the engine is meant to live: there may be other processes.
    pub(super) fn state_changed(&mut self, guard: Option<i32>) {
        self.processes = None;
        self.changed = clock::now();
        self.look(guard);
    }

    /// The engine has generated its first token; warm-up or the first phase comes next.
    pub(super) fn engine_ready(&mut self) {
        self.asking.begin();
    }

    /// Nothing is under way, a phase is about to begin: what is to be noted.
    pub(super) async fn before_phase(&mut self) -> Option<String> {
        self.asking.before_phase().await
    }

    /// A load process was started: the warm-up's or a phase's.
    pub(super) fn load_started(
        &mut self,
        _plan: &LoadPlan,
        warmup: bool,
        client: Option<i32>,
        guard: Option<i32>,
    ) {
        self.processes = None;
        self.client = client;
        self.changed = clock::now();
        self.measuring = !warmup;
        if self.measuring {
            // What the phase's first sample is compared with: nothing from before the phase is in it.
            self.look(guard);
        }
    }

    /// It has said its last word: what it measured, or `None` if it ended without a result.
    pub(super) fn load_ended(
        &mut self,
        _plan: &LoadPlan,
        warmup: bool,
        facts: Option<&PhaseFacts>,
    ) {
        self.measuring = false;
        if let Some(facts) = facts.filter(|_| !warmup) {
            self.asking.keep(facts);
            self.problems.extend(self.host.keep(facts).err());
        }
    }

    /// Whether the engine's own counters moved after an instant.
    pub(super) fn counters(&mut self, since: MonoNs) -> Signal {
        let (progress, seen) = match self.asking.moved_since(since) {
            Ok(true) => (Some(true), "its own counters went on"),
            Ok(false) => (Some(false), "its own counters stood still"),
            Err(why) => (None, why),
        };
        Signal { source: Source::Counters, progress, seen: seen.to_owned() }
    }

    /// A reason to stop has come; the engine may be looked at once more before it is told.
    pub(super) fn engine_stopping(&mut self) {
        self.asking.end();
    }

    /// The attempt is over: every task ends here, within a bound.
    pub(super) async fn settle(self) -> Sampled {
        let (effective, mut problems) = self.asking.settle().await;
        problems.extend(self.problems);
        Sampled { peak_memory_bytes: self.peak_memory_bytes, effective, problems }
    }
}
