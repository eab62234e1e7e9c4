//! Progress on a terminal: one bar for the run, one line for each trial that is under way.

use crate::daemon::progress::{Progress, Said};
use crate::ids::{TrialId, wire_name};
use crate::load::message::{Goal, LoadTick};
use crate::run::outcome::{Ending, TrialOutcome};
use crate::sweep::smoke::SMOKE_BLOCK;
use crate::units::count_f64;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;

/// Events a second between two ticks.
#[derive(Debug, Default)]
pub(super) struct Rate {
    chunks: u64,
    elapsed_ns: u64,
}

impl Rate {
    pub(super) fn at(&mut self, tick: &LoadTick) -> f64 {
        let span = Duration::from_nanos(tick.elapsed_ns.saturating_sub(self.elapsed_ns));
        let chunks = tick.chunks.saturating_sub(self.chunks);
        (self.chunks, self.elapsed_ns) = (tick.chunks, tick.elapsed_ns);
        if span.is_zero() { 0.0 } else { count_f64(chunks) / span.as_secs_f64() }
    }
}

/// A trial's end in one line.
pub(super) fn ended(outcome: &TrialOutcome) -> String {
    match &outcome.ending {
        Ending::Completed => "completed".into(),
        Ending::EngineFailed { failure } => {
            format!(
                "engine failed during {}: {} ({})",
                failure.during,
                failure.summary,
                wire_name(&failure.kind)
            )
        }
        Ending::Broken { reason } => format!("broken: {reason}"),
        Ending::Cancelled { reason } => format!("cancelled: {reason}"),
        Ending::Skipped { reason } => format!("skipped: {reason}"),
        Ending::Interrupted { reason } => format!("interrupted: {reason}"),
    }
}

/// `block 2, fast`, or `smoke, fast`.
fn trial_name(trial: &TrialId) -> String {
    match trial.block {
        SMOKE_BLOCK => format!("smoke, {}", trial.variant),
        block => format!("block {block}, {}", trial.variant),
    }
}

/// What is said when all trials of a block have ended.
pub(super) fn block_ended(block: u32, of: u32) -> String {
    match block {
        SMOKE_BLOCK => "every variant was launched once; the blocks begin".to_owned(),
        _ => format!("block {block} of {of} done, the report is up to date"),
    }
}

/// What is left, to be put behind a trial's name; nothing while it is not known.
pub(super) fn left(left: Option<Duration>) -> String {
    let Some(left) = left else { return String::new() };
    // Seconds matter only when few are left.
    let grain = if left > Duration::from_secs(600) { 60 } else { 1 };
    let left = Duration::from_secs(left.as_secs() / grain * grain);
    format!(", about {} left", humantime::format_duration(left))
}

/// Lines at the bottom of the terminal; what has ended scrolls up above them.
#[derive(Debug)]
pub(super) struct Screen {
    lines: MultiProgress,
    run: ProgressBar,
    begun: bool,
    now: BTreeMap<TrialId, Now>,
}

/// A trial that is under way.
#[derive(Debug)]
struct Now {
    line: ProgressBar,
    trial: String,
    phase: String,
    goal: Option<Goal>,
    rate: Rate,
}

impl Screen {
    pub(super) fn new() -> Self {
        let lines = MultiProgress::new();
        let run = lines.add(ProgressBar::new(0));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}, {elapsed} gone") {
            run.set_style(style);
        }
        run.enable_steady_tick(Duration::from_secs(1));
        Self { lines, run, begun: false, now: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, said: Said) {
        if let Progress::BlockEnded { block, of } = said.progress {
            self.line(&block_ended(block, of));
        }
        let Some(subject) = said.of else { return };
        let trial = &subject.trial;
        if let Progress::TrialEnded { outcome } = &said.progress {
            if let Some(now) = self.now.remove(trial) {
                now.line.finish_and_clear();
                self.lines.remove(&now.line);
            }
            self.run.inc(1);
            self.line(&format!("{trial}: {}", ended(outcome)));
            return;
        }
        if let Progress::TrialStarted { number, of, left: ahead, .. } = &said.progress {
            self.run.set_length(*of as u64);
            if !std::mem::replace(&mut self.begun, true) {
                // A run that is taken up again does not begin at its first trial.
                self.run.set_position(*number as u64 - 1);
            }
            self.run.set_message(format!("trial {number} of {of}{}", left(*ahead)));
        }
        let lines = &self.lines;
        self.now.entry(trial.clone()).or_insert_with(|| Now::new(lines, trial)).show(said.progress);
    }

    fn line(&self, text: &str) {
        // A terminal that has gone away is no reason to stop a run.
        self.lines.println(text).ok();
    }
}

impl Now {
    fn new(lines: &MultiProgress, trial: &TrialId) -> Self {
        let line = lines.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            line.set_style(style);
        }
        line.enable_steady_tick(Duration::from_millis(250));
        let (trial, phase) = (trial_name(trial), String::new());
        Self { line, trial, phase, goal: None, rate: Rate::default() }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::TrialStarted { attempt, .. } => {
                if attempt > 1 {
                    let name = self.trial.split(", attempt").next().unwrap_or_default();
                    self.trial = format!("{name}, attempt {attempt}");
                }
                self.line.set_message(self.trial.clone());
            }
            Progress::State { what } => self.line.set_message(format!("{}: {what}", self.trial)),
            Progress::PhaseStarted { phase, who, goal } => {
                self.rate = Rate::default();
                self.goal = Some(goal);
                self.phase = format!("{phase} ({who})");
                self.line.set_message(format!("{}: {}", self.trial, self.phase));
            }
            Progress::Tick(tick) => self.tick(&tick),
            Progress::Alive
            | Progress::Opened
            | Progress::TrialEnded { .. }
            | Progress::BlockEnded { .. } => {}
        }
    }

    fn tick(&mut self, tick: &LoadTick) {
        let rate = self.rate.at(tick);
        self.line.set_message(format!(
            "{}: {} {:.0} %, {} ok, {} failed, {} in flight, {rate:.0} tok/s (chunks)",
            self.trial,
            self.phase,
            self.goal.map_or(0.0, |goal| goal.percent(tick)),
            tick.ok,
            tick.failed,
            tick.in_flight,
        ));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.now.values().for_each(|now| now.line.finish_and_clear());
        self.run.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_once_it_is_known() {
        let shown = |seconds| left(Some(Duration::from_secs(seconds)));
        assert_eq!(left(None), "");
        assert_eq!(shown(75), ", about 1m 15s left");
        assert_eq!(shown(7_275), ", about 2h 1m left");
    }

    #[test]
    fn a_rate_is_of_the_time_since_the_last_tick() {
        let mut rate = Rate::default();
        let tick = |seconds: u64, chunks| LoadTick {
            elapsed_ns: seconds * 1_000_000_000,
            chunks,
            ..Default::default()
        };
        assert!((rate.at(&tick(1, 100)) - 100.0).abs() < 1e-9);
        assert!((rate.at(&tick(3, 500)) - 200.0).abs() < 1e-9);
        assert!(rate.at(&tick(3, 500)).abs() < 1e-9);
    }
}
