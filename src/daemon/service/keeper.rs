//! The control loop: keeps the queue, starts what is to be done, and writes down before it acts.
//!
//! Invariant: only this task changes the queue, and nothing in it waits for an engine.

use super::asks::Ask;
use super::config::Config;
use super::current::Current;
use super::events::Events;
use super::job::{self, Opening, Outfit, Work, WorkError, Worked};
use super::paths::Paths;
use super::view::{Counts, RunView, StatusView};
use super::{hooks, housekeeping, recover, tell};
use crate::clock;
use crate::daemon::progress::{Progress, Said, Watcher};
use crate::daemon::queue::{Decision, Queue, SlotState, wall_ms};
use crate::daemon::stopping::Stopping;
use crate::ids::RunId;
use crate::run::outcome::{Ending, TrialOutcome};
use crate::stats::summary::Summary;
use crate::store::control::{self, Change};
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;
use crate::store::index::Index;
use crate::store::lock::RunLock;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::sleep;

/// Clocks jump: the queue is looked at again at least so often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const SPACE_AGAIN: Duration = Duration::from_secs(5);
/// A work that gives no sign of life for so long is stuck, and with it the daemon.
const SILENCE: Duration = Duration::from_secs(60);

/// What the process is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    Reload,
}

/// What everybody may look at without asking.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) status: StatusView,
    /// In the order in which they would be worked on.
    pub(crate) runs: Arc<Vec<RunView>>,
}

/// What comes in.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) signals: mpsc::UnboundedReceiver<Signal>,
    pub(crate) progress: mpsc::UnboundedReceiver<Said>,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    pub(super) paths: Paths,
    pub(super) config_file: PathBuf,
    pub(super) config: watch::Sender<Arc<Config>>,
    pub(super) outfit: Arc<Outfit>,
    pub(super) queue: Queue,
    pub(super) index: Index,
    pub(super) open: HashMap<RunId, Arc<Opening>>,
    /// The trials under way: several of one block, where its sweep allows it.
    pub(super) current: Vec<Current>,
    /// The run whose last report is being made; nothing is measured meanwhile.
    pub(super) closing: Option<RunId>,
    pub(super) works: JoinSet<Worked>,
    pub(super) watcher: Watcher,
    pub(super) events: Arc<Events>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) counts: Counts,
    pub(super) stopping: bool,
    pub(super) no_space: Option<String>,
    pub(super) since: String,
    pub(super) _lock: RunLock,
}

impl Keeper {
    /// Runs until it is told to stop and every trial under way is torn down.
    pub(crate) async fn run(mut self, mut inbox: Inbox) -> Result<(), StoreError> {
        let mut beat = tokio::time::interval(tell::beat());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.resend();
        self.events.say("ready", None, None, "sweepd is ready");
        self.publish_runs();
        tell::ready();
        loop {
            let wake = self.advance();
            if self.stopping && self.works.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(signal) = inbox.signals.recv() => self.signal(signal),
                worked = finished(&mut self.works) => self.worked(worked),
                Some(said) = inbox.progress.recv() => self.progress(&said),
                Some(ask) = inbox.asks.recv() => self.ask(ask),
                _ = beat.tick() => self.beat(),
                () = sleep(wake) => {}
            }
        }
        self.index.close()
    }

    /// Does what is to be done now; how long until there may be more.
    fn advance(&mut self) -> Duration {
        while !self.stopping {
            let now = wall_ms(&clock::wall_time()).unwrap_or(0);
            if !self.there_is_space() {
                return SPACE_AGAIN;
            }
            let (index, open) = (&self.index, &self.open);
            let decision = self.queue.decide(
                now,
                |entry, variant| index.mean_duration(&entry.sweep, variant).ok().flatten(),
                |run| open.get(run).and_then(|opening| opening.get())?.cards(),
            );
            let run = match decision {
                Decision::Wait { until } => {
                    let wait = until.map(|until| until.saturating_sub(now).max(0).unsigned_abs());
                    return wait.map_or(LOOK_AGAIN, |ms| Duration::from_millis(ms).min(LOOK_AGAIN));
                }
                Decision::Close { .. } if !self.works.is_empty() => return LOOK_AGAIN,
                Decision::Start { .. } if self.closing.is_some() => return LOOK_AGAIN,
                Decision::Close { run } => return self.close(run),
                Decision::Start { run, index } => {
                    self.start(run, index);
                    continue;
                }
                Decision::WriteDown { run, index } => {
                    self.write_down(&run, index).map_err(|error| (run, error))
                }
                Decision::LeaveOut { run, reason } => {
                    self.leave_out(&run, reason).map_err(|error| (run, error))
                }
            };
            if let Err((run, error)) = run {
                self.trouble(&run, &error);
            }
        }
        LOOK_AGAIN
    }

    /// A full disk stops everything until there is space; anything else concerns its run alone.
    pub(super) fn trouble(&mut self, run: &RunId, error: &StoreError) {
        tracing::error!(%run, %error, "cannot go on");
        if error.is_disk_full() {
            self.no_space = Some(error.to_string());
            self.events.say("no_space", Some(run), None, error.to_string());
        } else {
            self.hold(run, error.to_string());
        }
        self.publish_runs();
    }

    fn hold(&mut self, run: &RunId, reason: String) {
        tracing::warn!(%run, reason, "held");
        self.events.say("run_held", Some(run), None, reason.clone());
        if let Some(entry) = self.queue.runs.get_mut(run) {
            entry.held = Some(reason);
        }
    }

    fn there_is_space(&mut self) -> bool {
        let floor = self.config.borrow().retention.free_bytes;
        let lacking = housekeeping::lacking(&self.paths.state, floor, self.no_space.is_some());
        match (lacking, &self.no_space) {
            (None, None) => true,
            (None, Some(_)) => {
                self.no_space = None;
                self.events.say("space", None, None, "there is space again");
                self.publish_runs();
                true
            }
            (Some(reason), known) => {
                // A trial that needs no more than it has may go on.
                if known.is_none() {
                    tracing::error!(reason, "no trial is started");
                    self.events.say("no_space", None, None, reason.clone());
                    self.no_space = Some(reason);
                    self.publish_runs();
                }
                false
            }
        }
    }

    fn start(&mut self, run: RunId, index: usize) {
        let Some(entry) = self.queue.runs.get_mut(&run) else { return };
        let of = entry.slots.len();
        let Some(slot) = entry.slots.get_mut(index) else { return };
        slot.state = SlotState::Running;
        let trial = slot.trial.clone();
        let (stopper, stopping) = Stopping::pair();
        tracing::info!(%run, %trial, "trial begins");
        self.events.say("trial_started", Some(&run), Some(&trial), "");
        let opening = self.open.entry(run.clone()).or_default().clone();
        let (dir, id) = (self.dir(&run), run.clone());
        let work = Work::Trial { dir, id, trial: trial.clone(), index, opening, stopping };
        let task = self.begin(work);
        self.current.push(Current::begin(&run, &trial, index, of, stopper, task));
        self.publish_runs();
    }

    fn close(&mut self, run: RunId) -> Duration {
        // Its lock goes with it.
        self.open.remove(&run);
        self.closing = Some(run.clone());
        self.begin(Work::Close { dir: self.dir(&run), id: run });
        self.publish_runs();
        LOOK_AGAIN
    }

    fn begin(&mut self, work: Work) -> task::Id {
        let job = job::work(work, self.outfit.clone(), self.watcher.clone());
        self.works.spawn(job).id()
    }

    pub(super) fn dir(&self, run: &RunId) -> RunDir {
        RunDir::open(&self.paths.run(&run.0))
    }

    /// Writes the outcome of a trial that will not be run.
    fn write_down(&mut self, run: &RunId, index: usize) -> Result<(), StoreError> {
        let dir = self.dir(run);
        let Some(slot) = self.queue.runs.get_mut(run).and_then(|e| e.slots.get_mut(index)) else {
            return Ok(());
        };
        let SlotState::Dropped { cancelled, reason } = &slot.state else { return Ok(()) };
        let reason = reason.clone();
        let ending =
            if *cancelled { Ending::Cancelled { reason } } else { Ending::Skipped { reason } };
        let now = clock::wall_time();
        let outcome = TrialOutcome {
            format: crate::run::FORMAT,
            run: run.clone(),
            trial: slot.trial.clone(),
            simulated: false,
            attempts: dir.last_attempt(&slot.trial)?,
            beside: Vec::new(),
            phases: Vec::new(),
            decisions: Vec::new(),
            started: now.clone(),
            ended: now,
            ending,
        };
        dir.finish_trial(&slot.trial, &outcome)?;
        slot.state = SlotState::Ended(outcome.ending.word().to_owned());
        self.events.say("trial_ended", Some(run), Some(&outcome.trial), outcome.ending.word());
        self.index.put_trial(run, &recover::indexed(&outcome))
    }

    fn leave_out(&mut self, run: &RunId, reason: String) -> Result<(), StoreError> {
        self.take_over(run, Change::LeftOut { reason })
    }

    /// Writes a decision about one run down and takes it over.
    pub(super) fn take_over(&mut self, run: &RunId, change: Change) -> Result<(), StoreError> {
        let line = control::append(&self.dir(run).file("control.jsonl"), change)?;
        if let Some(entry) = self.queue.runs.get_mut(run) {
            entry.apply(&line.change, &line.at);
        }
        Ok(())
    }

    fn worked(&mut self, worked: Result<(task::Id, Worked), JoinError>) {
        let task = worked.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
        let place = self.current.iter().position(|current| current.is_of(task));
        let current = place.map(|place| self.current.remove(place));
        match (worked, current) {
            (Ok((_, Worked::Closed { id, result })), _) => {
                self.closing = None;
                self.closed(&id, result);
            }
            (Ok((_, Worked::Trial { id, index, result })), _) => {
                if result.is_err() {
                    // It is taken up anew, when nothing of it is under way any more, so that what was
                    // interrupted is marked.
                    self.open.remove(&id);
                }
                self.trial_ended(&id, index, *result);
            }
            (Err(panic), Some(Current { view, index, .. })) => {
                self.open.remove(&view.run);
                let reason = format!("sweepd's own fault: {panic}");
                self.trial_ended(&view.run, index, Err(WorkError::CannotOpen(reason)));
            }
            (Err(panic), None) => {
                if let Some(run) = self.closing.take() {
                    let report = self.dir(&run).file("report.md");
                    self.closed(&run, Err(StoreError::damaged(&report, panic)));
                }
            }
        }
        self.publish_runs();
    }

    fn trial_ended(&mut self, run: &RunId, index: usize, result: Result<TrialOutcome, WorkError>) {
        let entry = self.queue.runs.get_mut(run);
        let Some(slot) = entry.and_then(|entry| entry.slots.get_mut(index)) else { return };
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                slot.state = SlotState::Waiting;
                match error {
                    WorkError::Store(error) => self.trouble(run, &error),
                    WorkError::CannotOpen(reason) => self.hold(run, reason),
                }
                return;
            }
        };
        let word = outcome.ending.word();
        tracing::info!(%run, trial = %outcome.trial, ending = word, "trial ended");
        self.events.say("trial_ended", Some(run), Some(&outcome.trial), word);
        match &outcome.ending {
            Ending::Interrupted { .. } => {
                slot.state = SlotState::Waiting;
                self.counts.trials_interrupted += 1;
                return;
            }
            Ending::Completed => self.counts.trials_completed += 1,
            _ => self.counts.trials_failed += 1,
        }
        slot.state = SlotState::Ended(word.to_owned());
        if let Some(entry) = self.queue.runs.get_mut(run) {
            entry.interrupted = false;
        }
        if let Err(error) = self.index.put_trial(run, &recover::indexed(&outcome)) {
            // The folder has it; the index is filled from it when it is opened next.
            tracing::warn!(%run, %error, "the index could not be written");
        }
    }

    /// The run's last report is made: its end is written down, then told.
    fn closed(&mut self, run: &RunId, result: Result<Box<Summary>, StoreError>) {
        let ended = result.and_then(|summary| {
            hooks::write(&self.paths.outbox(), &summary)?;
            control::append(&self.dir(run).file("control.jsonl"), Change::Ended {})?;
            Ok(summary)
        });
        let summary = match ended {
            Ok(summary) => summary,
            Err(error) if error.is_disk_full() => return self.trouble(run, &error),
            Err(error) => {
                tracing::error!(%run, %error, "its report cannot be made");
                self.events.say("run_without_report", Some(run), None, error.to_string());
                self.queue.runs.remove(run);
                return;
            }
        };
        self.queue.runs.remove(run);
        self.counts.runs_ended += 1;
        let status = &summary.status;
        let text =
            format!("{} of {} trials completed", status.trials_completed, status.trials_planned);
        tracing::info!(%run, text, "run ended");
        self.events.say("run_ended", Some(run), None, text);
        match recover::load(&self.dir(run), recover::Mode::Look) {
            Ok(Some(loaded)) => {
                if let Err(error) = self.index.put(&loaded.indexed(run), &loaded.trials) {
                    tracing::warn!(%run, %error, "the index could not be written");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%run, %error, "the run cannot be read again"),
        }
        self.resend();
        self.clean_up();
    }

    /// Messages about ended runs, also those that an earlier sweepd could not deliver.
    fn resend(&self) {
        let config = self.config.borrow().clone();
        hooks::deliver(self.paths.outbox(), config.hooks.clone(), config.run_as.clone());
    }

    fn clean_up(&mut self) {
        let retention = self.config.borrow().retention.clone();
        match housekeeping::clean(&self.paths, &self.index, &retention) {
            Ok(removed) => {
                for run in removed {
                    tracing::info!(%run, "removed, as retention asks");
                    self.events.say("run_removed", Some(&run), None, "by retention");
                }
            }
            Err(error) => tracing::warn!(%error, "old runs could not be removed"),
        }
    }

    fn progress(&mut self, said: &Said) {
        let Some(subject) = &said.of else { return };
        let current = self.current.iter_mut().find(|current| current.is(subject));
        let Some(current) = current else { return };
        current.note(&said.progress, &mut self.counts);
        match &said.progress {
            Progress::State { .. } | Progress::PhaseStarted { .. } => {
                let view = &current.view;
                let (run, trial, state) = (&view.run, &view.trial, view.state.clone());
                self.events.say("state", Some(run), Some(trial), state);
            }
            Progress::BlockEnded { block, of } => {
                let run = current.view.run.clone();
                let text = format!("block {block} of {of}, the report is up to date");
                self.events.say("block_ended", Some(&run), None, text);
            }
            Progress::TrialStarted { .. }
            | Progress::Opened
            | Progress::Tick(_)
            | Progress::Alive
            | Progress::TrialEnded { .. } => {}
        }
        self.publish();
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => self.reload(),
            Signal::Stop => {
                tracing::info!("stopping: what is under way is torn down and will be run again");
                self.events.say("stopping", None, None, "sweepd was told to end");
                self.stopping = true;
                tell::stopping();
                for current in &self.current {
                    current.stopper.interrupt("sweepd was told to end".to_owned());
                }
                self.publish_runs();
            }
        }
    }

    fn reload(&mut self) {
        tell::reloading();
        match super::config::read(&self.config_file) {
            Ok(config) => {
                self.config.send_replace(Arc::new(config));
                tracing::info!(file = %self.config_file.display(), "configuration read again");
                self.events.say("reloaded", None, None, "the configuration was read again");
            }
            Err(error) => {
                tracing::error!(%error, "the configuration stays as it was");
                self.events.say("reload_failed", None, None, error.to_string());
            }
        }
        tell::ready();
        self.publish_runs();
    }

    /// Alive is only said by a loop that turns, whose disk answers and whose work is not stuck.
    fn beat(&mut self) {
        if self.stopping {
            tell::more_time();
        }
        let stuck = self.current.iter().any(|current| current.silent_for() > SILENCE);
        match housekeeping::heartbeat(&self.paths.state) {
            Err(error) => tracing::error!(%error, "the state folder does not answer"),
            Ok(()) if stuck => tracing::error!("a trial under way gives no sign of life"),
            Ok(()) => tell::alive(),
        }
        self.publish();
    }
}

/// What the next work to end came to.
async fn finished(works: &mut JoinSet<Worked>) -> Result<(task::Id, Worked), JoinError> {
    match works.join_next_with_id().await {
        Some(worked) => worked,
        None => std::future::pending().await,
    }
}
