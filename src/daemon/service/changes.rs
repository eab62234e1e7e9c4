//! What people ask for, done: checked, written down, taken over, in this order.

use super::asks::{Ask, Refused, Request, What};
use super::current::Current;
use super::keeper::Keeper;
use super::recover::{self, Mode};
use super::view::{Done, Move, RunDetail, Submitted, TrialView};
use crate::clock;
use crate::daemon::begin;
use crate::daemon::order::Order;
use crate::daemon::queue::{Entry, Slot, SlotState, wall_ms};
use crate::ids::{RunId, TrialId};
use crate::store::control::{self, By, Change, Retrial, Schedule};
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;

impl Keeper {
    pub(super) fn ask(&mut self, ask: Ask) {
        // Shown before it is answered, so that whoever asked sees what they did. They may have gone
        // meanwhile: then nobody is told.
        match ask {
            Ask::Submit { order, schedule, by, answer } => {
                let submitted = self.submit(&order, schedule, by);
                self.publish_runs();
                answer.send(submitted).ok();
            }
            Ask::Change(Request { what, by, answer }) => {
                tracing::info!(uid = by.uid, pid = by.pid, what = ?what, "asked");
                let done = self.change(what, by);
                self.publish_runs();
                answer.send(done).ok();
            }
            Ask::Detail { run, answer } => {
                answer.send(self.detail(&run)).ok();
            }
            Ask::Stick => loop {
                std::thread::park();
            },
        }
    }

    fn submit(
        &mut self,
        order: &Order,
        mut schedule: Schedule,
        by: By,
    ) -> Result<Submitted, Refused> {
        if self.queue.draining || self.stopping {
            return Err(Refused::new(409, "the queue is draining: no new runs are taken")
                .help("`sweepd resume` ends that"));
        }
        let stamp = clock::wall_time();
        schedule.rank =
            wall_ms(&stamp).map_or(0.0, |ms| crate::units::count_f64(ms.unsigned_abs()));
        let stamp = crate::ids::folder_stamp(&stamp);
        let name = &order.sweep.name;
        let (dir, run) = RunDir::create(&self.paths.runs(), name, &stamp)
            .map_err(|error| Refused::store(&error))?;
        let submitted = self.freeze(order, &dir, &run, schedule, by);
        if submitted.is_err() {
            // Nobody was told of it; without its plan it is no run either.
            std::fs::remove_dir_all(&dir.path).ok();
        }
        let entry = submitted.map_err(|error| Refused::store(&error))?;
        let trials = entry.slots.len();
        self.events.say("run_submitted", Some(&run), None, format!("{trials} trials"));
        self.queue.runs.insert(run.clone(), entry);
        Ok(Submitted { run, path: dir.path.display().to_string(), trials })
    }

    fn freeze(
        &mut self,
        order: &Order,
        dir: &RunDir,
        run: &RunId,
        schedule: Schedule,
        by: By,
    ) -> Result<Entry, StoreError> {
        let change = Change::Submitted { by, schedule };
        let line = control::append(&dir.file("control.jsonl"), change)?;
        let plan = begin::freeze(order, dir, run)?;
        let mut entry = Entry::of(&plan);
        entry.apply(&line.change, &line.at);
        if let Some(loaded) = recover::load(dir, Mode::Look)? {
            self.index.put(&loaded.indexed(run), &[])?;
        }
        Ok(entry)
    }

    fn change(&mut self, what: What, by: By) -> Result<Done, Refused> {
        let done = match what {
            What::Cancel { run, trial } => self.cancel(&run, trial, by),
            What::Pause { run: Some(run) } => {
                self.decide(&run, Change::Paused { by })?;
                Ok(format!("{run} is paused: a trial under way ends, none is started"))
            }
            What::Continue { run: Some(run) } => {
                self.decide(&run, Change::Continued { by })?;
                Ok(format!("{run} goes on"))
            }
            What::Pause { run: None } => {
                self.decide_all(Change::Paused { by })?;
                Ok("the queue is paused: a trial under way ends, none is started".to_owned())
            }
            What::Continue { run: None } => {
                self.decide_all(Change::Continued { by })?;
                Ok("the queue goes on".to_owned())
            }
            What::Drain => {
                self.decide_all(Change::Drained { by })?;
                Ok("the queue is draining: no new runs are taken, those in it are done".to_owned())
            }
            What::Retry { run, trial } => self.retry(&run, trial, by),
            What::Move { run, to } => self.move_run(&run, &to, by),
        };
        let done = done?;
        self.events.say("changed", None, None, done.clone());
        Ok(Done { done })
    }

    /// A decision about one run of the queue.
    fn decide(&mut self, run: &RunId, change: Change) -> Result<(), Refused> {
        if !self.queue.runs.contains_key(run) {
            return Err(self.not_in_queue(run));
        }
        self.take_over(run, change).map_err(|error| Refused::store(&error))
    }

    fn decide_all(&mut self, change: Change) -> Result<(), Refused> {
        let line = control::append(&self.paths.control(), change);
        let line = line.map_err(|error| Refused::store(&error))?;
        self.queue.apply(&line.change);
        Ok(())
    }

    fn not_in_queue(&self, run: &RunId) -> Refused {
        if is_a_name(run) && self.dir(run).file("plan.json").exists() {
            return Refused::new(409, format!("run `{run}` has ended"))
                .help("`sweepd retry` takes its failed trials up again");
        }
        Refused::no_run(run)
    }

    fn cancel(&mut self, run: &RunId, trial: Option<TrialId>, by: By) -> Result<String, Refused> {
        let Some(entry) = self.queue.runs.get(run) else { return Err(self.not_in_queue(run)) };
        if let Some(trial) = &trial {
            let slot = entry.slots.iter().find(|slot| slot.trial == *trial);
            let slot = slot.ok_or_else(|| Refused::no_trial(run, &trial.to_string()))?;
            if let SlotState::Ended(how) = &slot.state {
                return Err(Refused::new(409, format!("trial {trial} has ended: {how}")));
            }
        }
        let reason = format!("cancelled by {by}");
        self.decide(run, Change::Cancelled { by, trial: trial.clone() })?;
        let mut torn_down = Vec::new();
        for Current { view, stopper, .. } in &self.current {
            if view.run == *run && trial.as_ref().is_none_or(|trial| *trial == view.trial) {
                stopper.cancel(reason.clone());
                torn_down.push(view.trial.to_string());
            }
        }
        let what = trial.map_or_else(|| format!("{run}"), |trial| format!("{trial} of {run}"));
        Ok(match &torn_down[..] {
            [] => format!("{what} is cancelled"),
            [one] => format!("{what} is cancelled, {one} is being torn down"),
            all => format!("{what} is cancelled, {} are being torn down", all.join(" and ")),
        })
    }

    /// Ended trials that did not complete, or the one that is named, are run again.
    fn retry(&mut self, run: &RunId, trial: Option<TrialId>, by: By) -> Result<String, Refused> {
        let store = |error: StoreError| Refused::store(&error);
        let dir = self.dir(run);
        let mut entry = match self.queue.runs.get(run) {
            Some(entry) => entry.clone(),
            None if is_a_name(run) => {
                let loaded = recover::load(&dir, Mode::Look).map_err(store)?;
                loaded.ok_or_else(|| Refused::no_run(run))?.entry
            }
            None => return Err(Refused::no_run(run)),
        };
        let chosen = chosen(run, &entry, trial)?;
        let mut trials = Vec::new();
        for trial in chosen {
            let after_attempt = dir.last_attempt(&trial).map_err(store)?;
            trials.push(Retrial { trial, after_attempt });
        }
        let change = Change::Retried { by, trials: trials.clone() };
        let line = control::append(&dir.file("control.jsonl"), change).map_err(store)?;
        for retrial in &trials {
            // From here on the decision stands: what fails is made good at the next start.
            if dir.is_finished(&retrial.trial) {
                dir.reopen_trial(&retrial.trial).map_err(store)?;
            }
            self.index.remove_trial(run, &retrial.trial).map_err(store)?;
        }
        entry.apply(&line.change, &line.at);
        if let Some(loaded) = recover::load(&dir, Mode::Look).map_err(store)? {
            self.index.put_run(&loaded.indexed(run)).map_err(store)?;
        }
        self.queue.runs.insert(run.clone(), entry);
        let count = trials.len();
        Ok(format!("{count} trial{} of {run} will be run again", if count == 1 { "" } else { "s" }))
    }

    fn move_run(&mut self, run: &RunId, to: &Move, by: By) -> Result<String, Refused> {
        let Some(entry) = self.queue.runs.get(run) else { return Err(self.not_in_queue(run)) };
        let mut schedule = entry.schedule.clone();
        if let Some(other) = &to.before {
            if !self.queue.runs.contains_key(other) || other == run {
                return Err(Refused::new(
                    404,
                    format!("there is no other run `{other}` in the queue"),
                ));
            }
            (schedule.priority, schedule.rank) = self.before(run, other);
        }
        schedule.priority = to.priority.unwrap_or(schedule.priority);
        if let Some(time) = &to.not_before {
            schedule.not_before = time_or_none("not_before", time)?;
        }
        if let Some(time) = &to.finish_by {
            schedule.finish_by = time_or_none("finish_by", time)?;
        }
        self.decide(run, Change::Moved { by, schedule })?;
        Ok(format!("{run} is moved"))
    }

    /// The priority of `other`, and a rank between it and the one before it.
    fn before(&self, run: &RunId, other: &RunId) -> (i32, f64) {
        let Some(entry) = self.queue.runs.get(other) else { return (0, 0.0) };
        let (priority, rank) = (entry.schedule.priority, entry.schedule.rank);
        let earlier = self.queue.runs.iter().filter(|(id, entry)| {
            *id != run && entry.schedule.priority == priority && entry.schedule.rank < rank
        });
        let next = earlier.map(|(_, entry)| entry.schedule.rank).fold(f64::MIN, f64::max);
        let rank = if next == f64::MIN { rank - 1000.0 } else { f64::midpoint(next, rank) };
        (priority, rank)
    }

    fn detail(&self, run: &RunId) -> Option<RunDetail> {
        let entry = self.queue.runs.get(run)?;
        let trials = entry.slots.iter().map(|slot| trial_view(&self.dir(run), slot)).collect();
        Some(RunDetail { run: self.run_view(run, entry), trials })
    }
}

/// Which trials a retry is about.
fn chosen(run: &RunId, entry: &Entry, trial: Option<TrialId>) -> Result<Vec<TrialId>, Refused> {
    if let Some(trial) = trial {
        let slot = entry.slots.iter().find(|slot| slot.trial == trial);
        let slot = slot.ok_or_else(|| Refused::no_trial(run, &trial.to_string()))?;
        return match slot.state {
            SlotState::Ended(_) | SlotState::Dropped { .. } => Ok(vec![trial]),
            SlotState::Waiting | SlotState::Running => {
                Err(Refused::new(409, format!("trial {trial} has not ended")))
            }
        };
    }
    let failed = |slot: &&Slot| match &slot.state {
        SlotState::Ended(how) => how != "completed",
        SlotState::Dropped { .. } => true,
        SlotState::Waiting | SlotState::Running => false,
    };
    let trials: Vec<_> = entry.slots.iter().filter(failed).map(|s| s.trial.clone()).collect();
    if trials.is_empty() {
        return Err(Refused::new(409, format!("no trial of `{run}` has failed")));
    }
    Ok(trials)
}

/// One trial, with what its outcome says in a line.
pub(crate) fn trial_view(dir: &RunDir, slot: &Slot) -> TrialView {
    let outcome = match &slot.state {
        SlotState::Ended(_) => dir.read_outcome(&slot.trial).ok().flatten(),
        SlotState::Waiting | SlotState::Running | SlotState::Dropped { .. } => None,
    };
    let (state, text) = match &slot.state {
        SlotState::Waiting => ("waiting".to_owned(), None),
        SlotState::Running => ("running".to_owned(), None),
        SlotState::Dropped { cancelled, reason } => {
            let word = if *cancelled { "cancelled" } else { "skipped" };
            (word.to_owned(), Some(reason.clone()))
        }
        SlotState::Ended(word) => {
            let text = outcome.as_ref().and_then(|outcome| outcome.ending.reason());
            (word.clone(), text.map(str::to_owned))
        }
    };
    let attempts = outcome
        .map_or_else(|| dir.last_attempt(&slot.trial).unwrap_or(0), |outcome| outcome.attempts);
    TrialView { trial: slot.trial.clone(), state, attempts, text }
}

/// An empty text takes a time away.
pub(crate) fn time_or_none(what: &str, text: &str) -> Result<Option<String>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    match wall_ms(text) {
        Some(_) => Ok(Some(text.to_owned())),
        None => Err(Refused::new(422, format!("`{what}` is no time: `{text}`"))
            .help("RFC 3339 in UTC, such as 2026-11-26T07:00:00Z")),
    }
}

/// A run's id is one folder's name: nothing that leads elsewhere.
pub(crate) fn is_a_name(run: &RunId) -> bool {
    crate::ids::is_folder_name(&run.0)
}
