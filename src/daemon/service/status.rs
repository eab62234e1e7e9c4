//! What the keeper shows to everybody: made by it, read without asking it.

use super::current::Current;
use super::keeper::{Keeper, View};
use super::tell;
use super::view::{API, CurrentView, RunView, StatusView};
use crate::daemon::estimate;
use crate::daemon::queue::{Entry, SlotState};
use crate::ids::RunId;
use crate::sample::room;
use std::sync::Arc;

impl Keeper {
    /// After a change of the queue.
    pub(super) fn publish_runs(&mut self) {
        let runs = self.queue.in_order();
        let runs: Vec<RunView> = runs.into_iter().map(|(id, run)| self.run_view(id, run)).collect();
        let status = self.status();
        let text = status_line(&status);
        self.view.send_replace(Arc::new(View { status, runs: Arc::new(runs) }));
        tell::status(&text);
    }

    /// After a change of the trial under way: the runs are as they were.
    pub(super) fn publish(&mut self) {
        let runs = self.view.borrow().runs.clone();
        let status = self.status();
        self.view.send_replace(Arc::new(View { status, runs }));
    }

    fn status(&self) -> StatusView {
        let waiting = |entry: &Entry| entry.count(|state| *state == SlotState::Waiting);
        let state = match () {
            () if self.stopping => "stopping",
            () if self.no_space.is_some() => "no_space",
            () if !self.works.is_empty() => "working",
            () if self.queue.paused => "paused",
            () => "idle",
        };
        let shown = |current: &Current| CurrentView {
            run_seconds_left: self.seconds_left(&current.view.run),
            ..current.view.clone()
        };
        let under_way: Vec<CurrentView> = self.current.iter().map(shown).collect();
        StatusView {
            sweepd: env!("CARGO_PKG_VERSION").to_owned(),
            api: API,
            pid: std::process::id(),
            since: self.since.clone(),
            state: state.to_owned(),
            problem: self.no_space.clone(),
            paused: self.queue.paused,
            draining: self.queue.draining,
            current: under_way.first().cloned(),
            under_way,
            runs_open: self.queue.runs.len(),
            trials_waiting: self.queue.runs.values().map(waiting).sum(),
            last_event: self.events.latest(),
            free_bytes: room::free_bytes(&self.paths.state),
            counts: self.counts,
        }
    }

    /// By what the variants' trials took so far; `None` where one has no experience yet.
    fn seconds_left(&self, run: &RunId) -> Option<f64> {
        let entry = self.queue.runs.get(run)?;
        let mut left = Vec::new();
        let mut known = std::collections::BTreeMap::new();
        for slot in &entry.slots {
            if matches!(slot.state, SlotState::Waiting | SlotState::Running) {
                let variant = &slot.trial.variant;
                let takes = known.entry(variant).or_insert_with(|| {
                    self.index.mean_duration(&entry.sweep, variant).ok().flatten()
                });
                left.push((slot.trial.block, (*takes)?));
            }
        }
        Some(estimate::together(left, entry.side.lanes).as_secs_f64())
    }

    pub(super) fn run_view(&self, id: &RunId, entry: &Entry) -> RunView {
        let running = entry.count(|state| *state == SlotState::Running) > 0;
        let state = match () {
            () if running => "running",
            () if entry.cancelled => "cancelled",
            () if entry.held.is_some() => "held",
            () if entry.paused => "paused",
            () => "waiting",
        };
        let ended = entry.count(|state| matches!(state, SlotState::Ended(_)));
        let completed =
            entry.count(|state| matches!(state, SlotState::Ended(how) if how == "completed"));
        RunView {
            run: id.clone(),
            sweep: entry.sweep.clone(),
            state: state.to_owned(),
            reason: entry.held.clone(),
            schedule: entry.schedule.clone(),
            submitted: entry.submitted.clone(),
            ended: None,
            trials_planned: entry.slots.len() as u64,
            trials_ended: ended as u64,
            trials_completed: completed as u64,
            path: self.paths.run(&id.0).display().to_string(),
        }
    }
}

/// For `systemctl status`.
fn status_line(status: &StatusView) -> String {
    let waiting = status.trials_waiting;
    if let Some(problem) = &status.problem {
        return format!("waiting for space: {problem}");
    }
    let Some(current) = &status.current else {
        return format!("{}, {waiting} trials waiting", status.state);
    };
    let left = current.run_seconds_left.map_or_else(String::new, |seconds| {
        let left = std::time::Duration::from_secs_f64(seconds.round());
        format!(", about {} left", humantime::format_duration(left))
    });
    let trial = |current: &CurrentView| {
        format!("trial {} of {} ({})", current.number, current.of, current.trial)
    };
    let trials: Vec<String> = status.under_way.iter().map(trial).collect();
    format!("{}: {}{left}; {waiting} trials waiting", current.run, trials.join(" beside "))
}
