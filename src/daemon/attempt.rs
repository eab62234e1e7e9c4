//! One attempt, driven: waits for what happens next, lets `supervise::state` decide, does it.

use super::finding::Finding;
use super::progress::{Progress, Watcher};
use crate::clock;
use crate::load::frames;
use crate::load::handle::LoadHandle;
use crate::load::message::{LoadEvent, LoadPlan};
use crate::run::outcome::{EvidenceLine, TimelineEntry};
use crate::run::phase::PhaseFacts;
use crate::sample::memory::MemorySampler;
use crate::store::dirs::AttemptDir;
use crate::supervise::guard::handle::GuardHandle;
use crate::supervise::guard::message::{GuardEvent, GuardOrder, GuardSpec};
use crate::supervise::ports::{self, Listener};
use crate::supervise::probe::{self, ProbeTarget};
use crate::supervise::state::{Action, Attempt, Event, Limits, State, Why};
use crate::supervise::tree;
use crate::units::MonoNs;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

const PROBE_EVERY: Duration = Duration::from_millis(200);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// For the load process to close its streams and write what it has.
const LOAD_STOP: Duration = Duration::from_secs(20);

/// Everything an attempt needs, worked out beforehand.
#[derive(Clone, Debug)]
pub(crate) struct AttemptPlan {
    pub(crate) guard: GuardSpec,
    pub(crate) port: u16,
    pub(crate) probe: ProbeTarget,
    pub(crate) warmup: Option<LoadPlan>,
    pub(crate) phases: Vec<LoadPlan>,
    pub(crate) limits: Limits,
}

/// How often stopping was asked for: 0, 1 (in order), 2 (at once).
pub(crate) type StopRequests = watch::Receiver<u32>;

/// Runs one attempt to its end. Every engine process is gone when this returns, or the finding says which is not.
pub(crate) async fn run(
    plan: &AttemptPlan,
    dir: &AttemptDir,
    watcher: &Watcher,
    mut stop: StopRequests,
) -> Finding {
    let guard = match GuardHandle::start(&plan.guard).await {
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
            _ = samples.tick() => { shell.sample(); continue }
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

async fn next_load(load: &mut Option<Loading>) -> Option<LoadEvent> {
    match load {
        Some(loading) => loading.handle.next().await,
        None => std::future::pending().await,
    }
}

/// A load process at work.
#[derive(Debug)]
struct Loading {
    handle: LoadHandle,
    plan: LoadPlan,
    warmup: bool,
}

struct Shell<'a> {
    plan: &'a AttemptPlan,
    dir: &'a AttemptDir,
    watcher: &'a Watcher,
    machine: Attempt,
    guard: GuardHandle,
    guard_over: bool,
    load: Option<Loading>,
    events: mpsc::UnboundedSender<Event>,
    probe: Option<tokio::task::JoinHandle<()>>,
    stops_seen: u32,
    memory: MemorySampler,
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
            guard,
            guard_over: false,
            load: None,
            events,
            probe: None,
            stops_seen: 0,
            memory: MemorySampler::new(),
            began,
            launched_at: None,
            stopping_at: None,
            port_free: false,
            marked_killed: 0,
            finding: Finding::empty(Why::Completed),
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
                self.finding.report = Some(report);
                Event::GuardEnded
            }
            None => {
                self.guard_over = true;
                Event::GuardLost
            }
        }
    }

    async fn load_said(&mut self, event: Option<LoadEvent>) -> Event {
        match event {
            Some(LoadEvent::Started) => Event::Tick,
            Some(LoadEvent::Tick(tick)) => {
                self.watcher.say(Progress::Tick(tick));
                Event::Tick
            }
            Some(LoadEvent::Done { facts }) => self.load_done(facts).await,
            Some(LoadEvent::Broken { reason }) => {
                self.load = None;
                Event::LoadBroken { reason }
            }
            None => {
                let how = match self.load.take() {
                    Some(loading) => loading.handle.reap().await,
                    None => None,
                };
                let how = how.unwrap_or_else(|| "it exited without a result".into());
                Event::LoadBroken { reason: format!("the load generator failed: {how}") }
            }
        }
    }

    /// Keeps what a load process measured: its records become the phase's files.
    async fn load_done(&mut self, facts: PhaseFacts) -> Event {
        let Some(loading) = self.load.take() else { return Event::Tick };
        let (end, records) = (facts.end, facts.records);
        let plan = loading.plan.clone();
        let warmup = loading.warmup;
        loading.handle.reap().await;
        match store(self.dir, &plan, &facts, warmup).await {
            Ok(ok) => {
                if !warmup {
                    self.finding.phases.push(facts);
                }
                Event::LoadDone { end, ok, records }
            }
            Err(reason) => Event::LoadBroken { reason },
        }
    }

    async fn take(&mut self, event: Event) {
        let now = clock::now();
        let before = self.machine.clone();
        let (next, actions) = before.clone().on(event, now, &self.plan.limits);
        self.machine = next;
        if self.machine.state != before.state {
            self.changed(&before.state, now);
        }
        for action in actions {
            self.perform(action).await;
        }
    }

    fn changed(&mut self, before: &State, now: MonoNs) {
        let living = !matches!(before, State::Stopping { .. } | State::Verifying { .. });
        let stopping = !self.plan_state_is_living();
        if living && stopping {
            self.finding.during = self.describe(before);
            self.stopping_at = Some(now);
        }
        if !stopping {
            // An attempt shorter than the sampling interval has a figure, too.
            self.sample();
        }
        if matches!(before, State::Proving) && !stopping {
            self.finding.time_to_ready = self.launched_at.map(|at| now.since(at));
        }
        let what = self.describe(&self.machine.state);
        tracing::info!(attempt = self.plan.guard.marker, state = what, "state");
        self.note(what.clone());
        // A phase is announced with its goals when it starts.
        if !matches!(self.machine.state, State::Loaded { .. }) {
            self.watcher.say(Progress::State { what });
        }
    }

    fn plan_state_is_living(&self) -> bool {
        match self.machine.state {
            State::Stopping { .. } | State::Verifying { .. } | State::Ended { .. } => false,
            State::Launching
            | State::Loading
            | State::Proving
            | State::WarmingUp
            | State::Loaded { .. } => true,
        }
    }

    fn describe(&self, state: &State) -> String {
        match state {
            State::Launching => "launching".into(),
            State::Loading => "loading".into(),
            State::Proving => "proving that it generates".into(),
            State::WarmingUp => "warming up".into(),
            State::Loaded { phase } => match self.plan.phases.get(*phase) {
                Some(plan) => format!("phase {}", plan.phase),
                None => format!("phase {phase}"),
            },
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
                if let Some(plan) = self.plan.phases.get(index).cloned() {
                    self.watcher.say(Progress::PhaseStarted {
                        phase: plan.phase.clone(),
                        users: plan.users,
                        min_requests: plan.min_requests,
                        min_duration: Duration::from_nanos(plan.min_duration_ns),
                    });
                    self.start_load(plan, false).await;
                }
            }
            Action::StopLoad => self.stop_load().await,
            Action::StopEngine => {
                self.abort_probe();
                self.guard.order(GuardOrder::Stop).await;
            }
            Action::KillEngine => self.guard.order(GuardOrder::Kill).await,
            Action::CheckPort => {
                self.kill_marked();
                self.spawn_port_check();
            }
        }
    }

    fn abort_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    fn spawn_probe(&mut self, generation: bool) {
        self.abort_probe();
        let (events, target) = (self.events.clone(), self.plan.probe.clone());
        let (port, guard) = (self.plan.port, self.guard.pid());
        let within = self.plan.limits.ready;
        self.probe = Some(tokio::spawn(async move {
            let client = match probe::client() {
                Ok(client) => client,
                Err(error) => {
                    let reason = format!("cannot make an HTTP client: {error}");
                    events.send(Event::LoadBroken { reason }).ok();
                    return;
                }
            };
            loop {
                let event = match listens(port, guard).await {
                    Some(refusal) => refusal,
                    None if generation => match probe::generates(&client, &target, within).await {
                        Ok(()) => Event::TokenGenerated,
                        Err(reason) => Event::ProbeFailed { reason },
                    },
                    None => match probe::answers(&client, &target).await {
                        Ok(()) => Event::EndpointAnswered,
                        Err(reason) => Event::ProbeFailed { reason },
                    },
                };
                let done = !matches!(event, Event::ProbeFailed { .. });
                if events.send(event).is_err() || done {
                    return;
                }
                sleep(PROBE_EVERY).await;
            }
        }));
    }

    async fn start_load(&mut self, plan: LoadPlan, warmup: bool) {
        match LoadHandle::start(&plan).await {
            Ok(handle) => self.load = Some(Loading { handle, plan, warmup }),
            Err(error) => {
                let reason = format!("cannot start the load generator: {error}");
                self.events.send(Event::LoadBroken { reason }).ok();
            }
        }
    }

    /// Closes the streams and keeps the records, within a bound.
    async fn stop_load(&mut self) {
        let Some(loading) = &mut self.load else { return };
        loading.handle.stop().await;
        let facts = timeout(LOAD_STOP, async {
            loop {
                match loading.handle.next().await {
                    Some(LoadEvent::Done { facts }) => return Some(facts),
                    Some(_) => {}
                    None => return None,
                }
            }
        })
        .await;
        match facts {
            Ok(Some(facts)) => {
                self.load_done(facts).await;
            }
            Ok(None) | Err(_) => {
                self.load = None; // Dropping the handle kills it.
                tracing::warn!(attempt = self.plan.guard.marker, "load generator killed");
                self.note("the load generator did not hand over its records".into());
            }
        }
    }

    /// Strays that the guard could not see: none, unless the guard itself was killed.
    fn kill_marked(&mut self) {
        for process in tree::marked(&self.plan.guard.marker) {
            self.marked_killed += u32::from(tree::kill(&process));
        }
    }

    fn spawn_port_check(&self) {
        let (events, port) = (self.events.clone(), self.plan.port);
        tokio::spawn(async move {
            // The machine's own deadline bounds this.
            while !ports::is_free(port) {
                sleep(Duration::from_millis(20)).await;
                if events.is_closed() {
                    return;
                }
            }
            events.send(Event::PortChecked).ok();
        });
    }

    fn sample(&mut self) {
        if let Some(guard) = self.guard.pid() {
            let engine = tree::descendants(&tree::all(), guard);
            self.memory.sample(&engine.iter().map(|process| process.pid).collect::<Vec<_>>());
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
        self.port_free = ports::is_free(self.plan.port);
        let State::Ended { why } = self.machine.state else { return self.finding };
        Finding {
            why,
            port_free: self.port_free,
            marked_killed: self.marked_killed,
            stop_took: self.stopping_at.map(|at| clock::now().since(at)),
            peak_memory_bytes: self.memory.peak_bytes(),
            ..self.finding
        }
    }
}

/// `None` when the port's listener is one of the engine's own processes.
async fn listens(port: u16, guard: Option<i32>) -> Option<Event> {
    let look = || {
        let ours = guard.map(|guard| tree::descendants(&tree::all(), guard)).unwrap_or_default();
        ports::listener(port, &ours)
    };
    match look() {
        Listener::Ours => None,
        Listener::Nobody => {
            Some(Event::ProbeFailed { reason: format!("nobody listens on port {port} yet") })
        }
        Listener::Foreign => {
            // The snapshots of sockets and processes are not of one instant: look twice.
            sleep(PROBE_EVERY).await;
            (look() == Listener::Foreign).then_some(Event::ForeignListener { port })
        }
    }
}

/// Turns a load process's frames into the phase's files; how many requests were ok.
async fn store(
    dir: &AttemptDir,
    plan: &LoadPlan,
    facts: &PhaseFacts,
    warmup: bool,
) -> Result<u64, String> {
    let (dir, path, facts) = (dir.clone(), plan.records.clone(), facts.clone());
    let work = move || {
        let frames = frames::read(&path).map_err(|error| error.to_string())?;
        if frames.torn {
            return Err(format!("{} ends within a record", path.display()));
        }
        let records = frames.records;
        let write = if warmup { AttemptDir::write_warmup } else { AttemptDir::write_phase };
        write(&dir, &facts, &records).map_err(|error| error.to_string())?;
        std::fs::remove_file(&path).ok();
        let ok = |record: &&crate::run::record::RequestRecord| {
            record.outcome == crate::run::record::RequestOutcome::Ok
        };
        Ok(records.iter().filter(ok).count() as u64)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(format!("the records could not be stored: {error}")),
    }
}
