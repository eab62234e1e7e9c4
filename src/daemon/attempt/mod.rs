//! One attempt, driven: waits for what happens next, lets `supervise::state` decide, does it.
//!
//! `Shell` holds what is under way; `probing` asks the engine, `load` drives the load process,
//! `samplers` is where everything that samples beside it begins and ends.

mod asking;
mod examine;
mod host_watch;
mod load;
mod probing;
mod samplers;
pub(crate) mod search;

pub(super) use self::examine::gpus as gpus_seen;
use self::load::{Loading, next_load};
use self::samplers::{SAMPLE_EVERY, Samplers};
use self::search::Seeking;
use super::finding::Finding;
use super::progress::{Progress, Watcher};
use crate::clock;
use crate::cpus::CpuSet;
use crate::engine::def::{EngineDef, ParamValue};
use crate::load::message::LoadPlan;
use crate::run::outcome::{EvidenceLine, TimelineEntry};
use crate::run::signal::Signal;
use crate::store::dirs::AttemptDir;
use crate::supervise::cgroup::Hold;
use crate::supervise::guard::handle::GuardHandle;
use crate::supervise::guard::message::{GuardEvent, GuardOrder, GuardSpec};
use crate::supervise::ports;
use crate::supervise::probe::ProbeTarget;
use crate::supervise::state::{Action, Attempt, Event, Limits, State, Why};
use crate::supervise::tree;
use crate::units::MonoNs;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Everything an attempt needs, worked out beforehand.
#[derive(Clone, Debug)]
pub(crate) struct AttemptPlan {
    pub(crate) guard: GuardSpec,
    pub(crate) port: u16,
    pub(crate) probe: ProbeTarget,
    pub(crate) warmup: Option<LoadPlan>,
    pub(crate) phases: Vec<LoadPlan>,
    /// Those of the phases that are the first run of a search.
    pub(crate) searches: Vec<Seeking>,
    pub(crate) limits: Limits,
    /// `py-spy`, where it is installed.
    pub(crate) dumper: Option<PathBuf>,
    pub(crate) readback: ReadBack,
    /// What load processes are bound to.
    pub(crate) client_cpus: Option<CpuSet>,
}

/// What is read back from the engine while it runs.
#[derive(Clone, Debug)]
pub(crate) struct ReadBack {
    pub(crate) engine: Arc<EngineDef>,
    pub(crate) params: BTreeMap<String, ParamValue>,
}

/// What goes on beside an attempt.
#[derive(Debug)]
pub(crate) struct Beside<'a> {
    /// Descriptors that the guard holds until its end: the leases of GPUs.
    pub(crate) keep: Vec<BorrowedFd<'a>>,
    /// Events from outside that end it.
    pub(crate) alarms: mpsc::UnboundedReceiver<Event>,
}

/// For a last look that has said that it is over.
const EXAMINED: Duration = Duration::from_millis(100);

/// How often stopping was asked for: 0, 1 (in order), 2 (at once).
pub(crate) type StopRequests = watch::Receiver<u32>;

/// Runs one attempt to its end. Every engine process is gone when this returns, or the finding says which is not.
pub(crate) async fn run(
    plan: &AttemptPlan,
    dir: &AttemptDir,
    watcher: &Watcher,
    mut beside: Beside<'_>,
    mut stop: StopRequests,
) -> Finding {
    let guard = match GuardHandle::start(&plan.guard, &beside.keep).await {
        Ok(guard) => guard,
        Err(error) => return Finding::never_began(format!("cannot start the guard: {error}")),
    };
    let (events, mut internal) = mpsc::unbounded_channel();
    let mut shell = Shell::new(plan, dir, watcher, guard, events);
    let mut samples = tokio::time::interval(SAMPLE_EVERY);
    samples.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !matches!(shell.machine.state, State::Ended { .. }) {
        let wait = shell.machine.deadline.since(clock::now()) + Duration::from_millis(1);
        let event = tokio::select! {
            biased;
            reason = asked_to_stop(&mut stop, &mut shell.stops_seen) => Event::CancelAsked { reason },
            event = shell.guard.next(), if !shell.guard_over => shell.guard_said(event),
            event = next_load(&mut shell.load) => shell.load_said(event).await,
            Some(event) = internal.recv() => event,
            Some(event) = beside.alarms.recv() => event,
            _ = samples.tick() => { shell.samplers.tick(shell.guard.pid()); continue }
            () = sleep(wait) => Event::Tick,
        };
        shell.take(event).await;
    }
    shell.finish().await
}

/// The next request to stop that was not seen yet.
async fn asked_to_stop(stop: &mut StopRequests, seen: &mut u32) -> String {
    let next = *seen + 1;
    if stop.wait_for(|count| *count >= next).await.is_err() {
        // Nobody can ask any more.
        std::future::pending::<()>().await;
    }
    *seen = next;
    "stopped by the user".into()
}

/// What is under way in one attempt.
struct Shell<'a> {
    plan: &'a AttemptPlan,
    dir: &'a AttemptDir,
    watcher: &'a Watcher,
    machine: Attempt,
    /// What is driven, with what searches have added.
    phases: Vec<LoadPlan>,
    searches: Vec<Seeking>,
    limits: Limits,
    guard: GuardHandle,
    guard_over: bool,
    load: Option<Loading>,
    events: mpsc::UnboundedSender<Event>,
    probe: Option<tokio::task::JoinHandle<()>>,
    stops_seen: u32,
    /// The last look, under way.
    examination: Option<JoinHandle<Vec<Signal>>>,
    samplers: Samplers,
    began: MonoNs,
    launched_at: Option<MonoNs>,
    stopping_at: Option<MonoNs>,
    port_free: bool,
    marked_killed: u32,
    finding: Finding,
}

impl<'a> Shell<'a> {
    fn new(
        plan: &'a AttemptPlan,
        dir: &'a AttemptDir,
        watcher: &'a Watcher,
        guard: GuardHandle,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let began = clock::now();
        Self {
            plan,
            dir,
            watcher,
            machine: Attempt::begin(began, &plan.limits),
            phases: plan.phases.clone(),
            searches: plan.searches.clone(),
            limits: plan.limits,
            guard,
            guard_over: false,
            load: None,
            events,
            probe: None,
            stops_seen: 0,
            examination: None,
            samplers: Samplers::begin(plan, dir),
            began,
            launched_at: None,
            stopping_at: None,
            port_free: false,
            marked_killed: 0,
            finding: Finding { began: Some(began), ..Finding::empty(Why::Completed) },
        }
    }

    fn guard_said(&mut self, event: Option<GuardEvent>) -> Event {
        match event {
            Some(GuardEvent::Launched { pid }) => {
                self.launched_at = Some(clock::now());
                self.finding.launched = true;
                self.note(format!("launched as pid {pid}"));
                Event::Launched
            }
            Some(GuardEvent::LaunchFailed { error }) => Event::LaunchFailed { error },
            Some(GuardEvent::Matched { rule, line, text }) => {
                tracing::info!(attempt = self.plan.guard.marker, line, text, "a rule matched");
                self.finding.matches.push((rule, EvidenceLine { line, text }));
                Event::Tick
            }
            Some(GuardEvent::LeaderExited { status }) => {
                self.finding.exit = Some(status);
                self.note(format!("its main process ended: {status}"));
                Event::LeaderExited { status }
            }
            Some(GuardEvent::Note { text }) => {
                self.note(text);
                Event::Tick
            }
            Some(GuardEvent::Ended(report)) => {
                self.guard_over = true;
                self.finding.circumstances.oom_kills = report.kernel.oom_kills;
                self.finding.circumstances.kernel_log.clone_from(&report.kernel.kernel_log);
                self.finding.report = Some(*report);
                Event::GuardEnded
            }
            None => {
                self.guard_over = true;
                Event::GuardLost
            }
        }
    }

    async fn take(&mut self, event: Event) {
        let now = clock::now();
        let before = self.machine.clone();
        let (next, actions) = before.clone().on(event, now, &self.limits);
        self.machine = next;
        if self.machine.state != before.state {
            self.changed(&before.state, now);
            if is_living(&self.machine.state) {
                self.guard.order(GuardOrder::Look).await;
            }
        }
        for action in actions {
            self.perform(action).await;
        }
    }

    fn changed(&mut self, before: &State, now: MonoNs) {
        let stopping = !is_living(&self.machine.state);
        let ending = matches!(self.machine.state, State::Stopping { .. } | State::Verifying { .. });
        if ending && self.stopping_at.is_none() {
            self.stopping_at = Some(now);
        }
        if is_living(before) && stopping {
            self.finding.during = self.describe(before);
            let completed = matches!(self.machine.state, State::Stopping { why: Why::Completed });
            if let State::Loaded { phase } = before
                && !completed
            {
                let plan = self.phases.get(*phase);
                self.finding.failed_phase = plan.map(|plan| plan.phase.clone());
            }
            self.samplers.engine_stopping();
        }
        if !stopping {
            // An attempt shorter than the sampling interval has a figure, too.
            self.samplers.state_changed(self.guard.pid());
        }
        if matches!(before, State::Proving) && !stopping {
            self.finding.time_to_ready = self.launched_at.map(|at| now.since(at));
            self.samplers.engine_ready();
        }
        let what = self.describe(&self.machine.state);
        tracing::info!(attempt = self.plan.guard.marker, state = what, "state");
        self.note(what.clone());
        // A phase is announced with its goals when it starts.
        if !matches!(self.machine.state, State::Loaded { .. }) {
            self.watcher.say(Progress::State { what });
        }
    }

    fn describe(&self, state: &State) -> String {
        match state {
            State::Launching => "launching".into(),
            State::Loading => "loading".into(),
            State::Proving => "proving that it generates".into(),
            State::WarmingUp => "warming up".into(),
            State::Loaded { phase } => match self.phases.get(*phase) {
                Some(plan) => format!("phase {}", plan.phase),
                None => format!("phase {phase}"),
            },
            State::Examining { .. } => "looking at it once more".into(),
            State::Stopping { .. } => "stopping".into(),
            State::Verifying { .. } => "verifying that nothing is left".into(),
            State::Ended { .. } => "ended".into(),
        }
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::ProbeEndpoint => self.spawn_probe(false),
            Action::ProveGeneration => self.spawn_probe(true),
            Action::StartWarmup => {
                if let Some(plan) = self.plan.warmup.clone() {
                    self.start_load(plan, true).await;
                }
            }
            Action::StartPhase(index) => {
                if let Some(plan) = self.phases.get(index).cloned() {
                    self.watcher.say(Progress::PhaseStarted {
                        phase: plan.phase.clone(),
                        who: plan.who(),
                        goal: plan.goal(),
                    });
                    if let Some(note) = self.samplers.before_phase().await {
                        self.note(note);
                    }
                    self.start_load(plan, false).await;
                }
            }
            Action::Examine => self.begin_examination(),
            Action::StopLoad => self.stop_load().await,
            Action::StopEngine => {
                self.abort_probe();
                self.end_examination().await;
                self.guard.order(GuardOrder::Stop).await;
            }
            Action::KillEngine => self.guard.order(GuardOrder::Kill).await,
            Action::CheckPort => {
                self.end_examination().await;
                self.kill_marked();
                self.spawn_port_check();
            }
        }
    }

    fn begin_examination(&mut self) {
        self.abort_probe();
        let now = clock::now();
        let silent_since = MonoNs::new(now.get() - nanoseconds(self.plan.limits.stall));
        self.finding.silence = Some((silent_since, now));
        self.finding.signals = vec![self.samplers.counters(silent_since)];
        let subject = examine::Subject {
            guard: self.guard.pid(),
            target: self.plan.probe.clone(),
            stacks: self.dir.path.join("stacks.txt"),
            dumper: self.plan.dumper.clone(),
        };
        let events = self.events.clone();
        self.examination = Some(tokio::spawn(async move {
            let signals = examine::examine(subject).await;
            events.send(Event::Examined).ok();
            signals
        }));
    }

    /// What it has seen, if it is over; otherwise it is cut short.
    async fn end_examination(&mut self) {
        if let Some(mut task) = self.examination.take() {
            match timeout(EXAMINED, &mut task).await {
                Ok(signals) => self.finding.signals.extend(signals.unwrap_or_default()),
                Err(_) => task.abort(),
            }
        }
    }

    /// Strays that the guard could not see: none, unless the guard itself was killed.
    fn kill_marked(&mut self) {
        if self.guard_over && self.finding.report.is_none() {
            Hold::take(self.plan.guard.groups.clone()).kill();
        }
        for process in tree::marked(&self.plan.guard.marker) {
            self.marked_killed += u32::from(tree::kill(&process));
        }
    }

    fn note(&mut self, what: String) {
        let at = clock::now().since(self.began).as_millis();
        let at_ms = u64::try_from(at).unwrap_or(u64::MAX);
        self.finding.timeline.push(TimelineEntry { at_ms, what });
    }

    async fn finish(mut self) -> Finding {
        self.abort_probe();
        self.kill_marked();
        timeout(Duration::from_secs(2), self.guard.reap()).await.ok();
        if self.finding.report.is_none() {
            // The guard would have done this.
            Hold::take(self.plan.guard.groups.clone()).remove();
        }
        self.port_free = ports::is_free(self.plan.port);
        let sampled = self.samplers.settle().await;
        for problem in &sampled.problems {
            tracing::warn!(attempt = self.plan.guard.marker, problem, "samples");
        }
        let State::Ended { why } = self.machine.state else { return self.finding };
        Finding {
            searches: self.searches.into_iter().map(Seeking::outcome).collect(),
            why,
            port_free: self.port_free,
            marked_killed: self.marked_killed,
            stop_took: self.stopping_at.map(|at| clock::now().since(at)),
            peak_memory_bytes: sampled.peak_memory_bytes,
            effective: sampled.effective,
            ..self.finding
        }
    }
}

/// Nothing has made it stop yet.
const fn is_living(state: &State) -> bool {
    match state {
        State::Examining { .. }
        | State::Stopping { .. }
        | State::Verifying { .. }
        | State::Ended { .. } => false,
        State::Launching
        | State::Loading
        | State::Proving
        | State::WarmingUp
        | State::Loaded { .. } => true,
    }
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
