//! The trial's GPUs while it runs: a helper samples them into a file, this task hears what must be acted on.
//!
//! A helper that hangs is abandoned and another started, so that a driver call which does not return
//! costs samples and nothing else. Invariant: nothing here makes the attempt wait.

use super::belongs::{Belongs, belongs};
use crate::clock;
use crate::engine::rules::Symptom;
use crate::gpu::client::{Nvml, Watcher};
use crate::gpu::fault::{Fault, FaultKind};
use crate::gpu::message::{WatchEvent, WatchPlan};
use crate::run::gpu::{ForeignProcess, Gap, GpuProcess, Placement, Xid};
use crate::run::outcome::FailureKind;
use crate::supervise::state::Event;
use crate::units::MonoNs;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Between one helper and the next, doubled each time up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(30);
/// For the last samples of a helper that answers.
const SETTLE: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) foreign: Vec<ForeignProcess>,
    pub(super) xids: Vec<Xid>,
    pub(super) lost: Option<String>,
    pub(super) gaps: Vec<Gap>,
    /// Places of the own GPUs on which the engine was seen.
    on: BTreeSet<u32>,
    elsewhere: Option<String>,
    unseen: bool,
    told: bool,
    /// In words, for the timeline.
    pub(super) notes: Vec<(MonoNs, String)>,
}

impl Seen {
    /// `gpus`: how many the trial owned.
    pub(super) fn placement(&self, gpus: usize) -> Placement {
        if self.elsewhere.is_some() {
            Placement::Elsewhere
        } else if self.on.len() == gpus {
            Placement::Verified
        } else if self.unseen || !self.told {
            Placement::Unverifiable
        } else {
            Placement::NotSeen
        }
    }
}

/// The task, and how to end it.
#[derive(Debug)]
pub(super) struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Seen>,
}

impl Watch {
    /// `alarms`: where an event goes that must end the attempt.
    pub(super) fn start(
        nvml: Nvml,
        plan: WatchPlan,
        marker: String,
        known: BTreeSet<u32>,
        alarms: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let seen = Seen::default();
        let task = Task { plan, marker, known, alarms, seen };
        Self { stop, task: tokio::spawn(task.run(nvml, stopped)) }
    }

    pub(super) async fn stop(self) -> Seen {
        self.stop.send(()).ok();
        let mut task = self.task;
        match tokio::time::timeout(SETTLE, &mut task).await {
            Ok(seen) => {
                let mut seen = seen.unwrap_or_default();
                for process in seen.foreign.iter_mut().filter(|p| p.last_seen == FOR_EVER) {
                    process.last_seen = clock::now();
                }
                seen
            }
            Err(_) => {
                task.abort();
                Seen::default()
            }
        }
    }
}

struct Task {
    plan: WatchPlan,
    marker: String,
    /// Foreign processes that were there before the launch, where the sweep lets them be: already told.
    known: BTreeSet<u32>,
    alarms: mpsc::UnboundedSender<Event>,
    seen: Seen,
}

impl Task {
    async fn run(mut self, nvml: Nvml, mut stopped: oneshot::Receiver<()>) -> Seen {
        let mut again = AGAIN;
        loop {
            let fault = match Watcher::start(&nvml, &self.plan).await {
                Ok(mut watcher) => loop {
                    tokio::select! {
                        biased;
                        _ = &mut stopped => {
                            watcher.stop().await;
                            return self.seen;
                        }
                        event = watcher.next() => match event {
                            Ok(WatchEvent::Failed(fault)) => break fault,
                            Ok(event) => {
                                again = AGAIN;
                                self.hear(event);
                            }
                            Err(fault) => break fault,
                        }
                    }
                },
                Err(fault) => fault,
            };
            let from = clock::now();
            let why = fault.to_string();
            self.note(from, format!("no GPU telemetry for now: {why}"));
            // The lost one's own alarm has been raised; asking it again brings nothing.
            let over = self.seen.lost.is_some();
            let wait = if over { Duration::MAX } else { again };
            let ended = tokio::time::timeout(wait, &mut stopped).await.is_ok();
            self.seen.gaps.push(Gap { from, to: clock::now(), why });
            if ended {
                return self.seen;
            }
            again = (again * 2).min(AGAIN_LONGEST);
        }
    }

    fn hear(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Beat | WatchEvent::Failed(_) => {}
            WatchEvent::Processes { gpu, at, list } => self.processes(gpu, at, &list),
            WatchEvent::Xid { gpu, at, code } => {
                let uuid = self.uuid(gpu);
                let name = code.map_or("of an unknown number".to_owned(), |code| code.to_string());
                self.note(at, format!("XID {name} on {uuid}"));
                self.seen.xids.push(Xid { gpu: uuid, at, code });
            }
            WatchEvent::Lost { gpu, at, fault } => self.lost(gpu, at, &fault),
        }
    }

    fn lost(&mut self, gpu: u32, at: MonoNs, fault: &Fault) {
        let detail = format!("{}: {fault}", self.uuid(gpu));
        self.note(at, detail.clone());
        if fault.kind == FaultKind::GpuLost && self.seen.lost.is_none() && self.is_own(gpu) {
            self.seen.lost = Some(detail.clone());
            self.alarm(FailureKind::XidOrHwFault, detail);
        }
    }

    fn processes(&mut self, gpu: u32, at: MonoNs, list: &[GpuProcess]) {
        self.seen.told = true;
        let uuid = self.uuid(gpu);
        let listed = |process: &ForeignProcess| list.iter().any(|other| other.pid == process.pid);
        for known in self.seen.foreign.iter_mut().filter(|process| process.gpu == uuid) {
            if listed(known) || known.last_seen == FOR_EVER {
                known.last_seen = if listed(known) { FOR_EVER } else { at };
            }
        }
        for process in list {
            match (belongs(process.pid, &self.marker), self.is_own(gpu)) {
                (Belongs::Ours, true) => {
                    self.seen.on.insert(gpu);
                }
                (Belongs::Ours, false) => self.is_elsewhere(at, &uuid, process.pid),
                (Belongs::Foreign, true) => self.foreign(&uuid, at, process),
                (Belongs::Unseen, true) => self.seen.unseen = true,
                (Belongs::Foreign | Belongs::Unseen, false) => {}
            }
        }
    }

    fn foreign(&mut self, uuid: &str, at: MonoNs, process: &GpuProcess) {
        let same = |known: &ForeignProcess| known.pid == process.pid && known.gpu == uuid;
        if self.seen.foreign.iter().any(same) {
            return;
        }
        let (user, command) = describe(process.pid);
        if !self.known.contains(&process.pid) {
            let who = command.as_deref().unwrap_or("unknown");
            let user = user.as_deref().unwrap_or("unknown");
            self.note(
                at,
                format!("a foreign process is on {uuid}: pid {} ({user}, {who})", process.pid),
            );
        }
        self.seen.foreign.push(ForeignProcess {
            gpu: uuid.to_owned(),
            pid: process.pid,
            user,
            command,
            memory_bytes: process.memory_bytes,
            first_seen: at,
            last_seen: FOR_EVER,
        });
    }

    fn is_elsewhere(&mut self, at: MonoNs, uuid: &str, pid: u32) {
        if self.seen.elsewhere.is_none() {
            let detail = format!("the engine's process {pid} is on {uuid}, which is not its own");
            self.note(at, detail.clone());
            self.seen.elsewhere = Some(detail.clone());
            self.alarm(FailureKind::BadConfig, detail);
        }
    }

    fn alarm(&self, kind: FailureKind, detail: String) {
        self.alarms.send(Event::GpuTrouble { symptom: Symptom::Gpu { kind, detail } }).ok();
    }

    fn note(&mut self, at: MonoNs, text: String) {
        tracing::warn!(attempt = self.marker, text, "gpu");
        self.seen.notes.push((at, text));
    }

    /// Watched GPUs come first, those of others after them.
    fn is_own(&self, place: u32) -> bool {
        usize::try_from(place).is_ok_and(|place| place < self.plan.uuids.len())
    }

    fn uuid(&self, place: u32) -> String {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let mut all = self.plan.uuids.iter().chain(&self.plan.others);
        all.nth(place).cloned().unwrap_or_else(|| "a GPU".to_owned())
    }
}

/// Still there when last looked.
const FOR_EVER: MonoNs = MonoNs::new(i64::MAX);

/// User and command of a process that is in this machine's view.
pub(super) fn describe(pid: u32) -> (Option<String>, Option<String>) {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok().map(|m| m.uid());
    let user = uid.map(|uid| {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
        user.map_or_else(|| uid.to_string(), |user| user.name)
    });
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    (user, command.map(|command| command.trim().to_owned()))
}
