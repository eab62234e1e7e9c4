//! A trial under way, as it is told: fed by its progress, asked by the status.

use super::view::{Counts, CurrentView, RequestsView};
use crate::clock;
use crate::daemon::progress::{Progress, Subject};
use crate::daemon::stopping::Stopper;
use crate::ids::{RunId, TrialId};
use crate::load::message::LoadTick;
use crate::units::{MonoNs, count_f64};
use std::time::Duration;
use tokio::task;

#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) view: CurrentView,
    pub(crate) stopper: Stopper,
    pub(crate) index: usize,
    task: task::Id,
    last_tick: LoadTick,
    alive: MonoNs,
}

impl Current {
    pub(crate) fn begin(
        run: &RunId,
        trial: &TrialId,
        index: usize,
        of: usize,
        stopper: Stopper,
        task: task::Id,
    ) -> Self {
        let view = CurrentView {
            run: run.clone(),
            trial: trial.clone(),
            attempt: 0,
            number: index + 1,
            of,
            state: "preparing".to_owned(),
            started: clock::wall_time(),
            requests: None,
            run_seconds_left: None,
        };
        Self { view, stopper, index, task, last_tick: LoadTick::default(), alive: clock::now() }
    }

    /// It is what this task works on.
    pub(crate) fn is_of(&self, task: task::Id) -> bool {
        self.task == task
    }

    /// It is what is spoken of.
    pub(crate) fn is(&self, subject: &Subject) -> bool {
        self.view.run == subject.run && self.view.trial == subject.trial
    }

    /// For how long the task that does the work has given no sign of life.
    pub(crate) fn silent_for(&self) -> Duration {
        clock::now().since(self.alive)
    }

    /// Takes over what is happening.
    pub(crate) fn note(&mut self, progress: &Progress, counts: &mut Counts) {
        self.alive = clock::now();
        match progress {
            Progress::TrialStarted { attempt, .. } => self.view.attempt = *attempt,
            Progress::State { what } => self.view.state.clone_from(what),
            Progress::PhaseStarted { phase, .. } => {
                self.view.state = format!("phase {phase}");
                self.view.requests = None;
                self.last_tick = LoadTick::default();
            }
            Progress::Tick(tick) => self.tick(tick, counts),
            Progress::Alive
            | Progress::Opened
            | Progress::TrialEnded { .. }
            | Progress::BlockEnded { .. } => {}
        }
    }

    fn tick(&mut self, tick: &LoadTick, counts: &mut Counts) {
        let last = std::mem::replace(&mut self.last_tick, *tick);
        // A warm-up's counters begin again with each phase.
        counts.requests_ok += tick.ok.saturating_sub(last.ok);
        counts.requests_failed += tick.failed.saturating_sub(last.failed);
        let span = Duration::from_nanos(tick.elapsed_ns.saturating_sub(last.elapsed_ns));
        let chunks = count_f64(tick.chunks.saturating_sub(last.chunks));
        self.view.requests = Some(RequestsView {
            elapsed_s: Duration::from_nanos(tick.elapsed_ns).as_secs_f64(),
            in_flight: tick.in_flight,
            ok: tick.ok,
            failed: tick.failed,
            chunks_per_s: (!span.is_zero()).then(|| chunks / span.as_secs_f64()),
        });
    }
}
