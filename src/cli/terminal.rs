//! Progress on a terminal: one bar for the run, one line for what is happening now.

use crate::daemon::progress::Progress;
use crate::ids::{TrialId, wire_name};
use crate::load::message::{Goal, LoadTick};
use crate::run::outcome::{Ending, TrialOutcome};
use crate::sweep::smoke::SMOKE_BLOCK;
use crate::units::count_f64;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
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

/// Two lines at the bottom of the terminal; what has ended scrolls up above them.
#[derive(Debug)]
pub(super) struct Screen {
    lines: MultiProgress,
    run: ProgressBar,
    now: ProgressBar,
    trial: String,
    phase: String,
    goal: Option<Goal>,
    rate: Rate,
}

impl Screen {
    pub(super) fn new() -> Self {
        let lines = MultiProgress::new();
        let run = lines.add(ProgressBar::new(0));
        let now = lines.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}, {elapsed} gone") {
            run.set_style(style);
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            now.set_style(style);
        }
        run.enable_steady_tick(Duration::from_secs(1));
        now.enable_steady_tick(Duration::from_millis(250));
        Self {
            lines,
            run,
            now,
            trial: String::new(),
            phase: String::new(),
            goal: None,
            rate: Rate::default(),
        }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        match progress {
            Progress::TrialStarted { number, of, left: ahead, trial, attempt } => {
                self.run.set_length(of as u64);
                self.run.set_position(number as u64 - 1);
                let left = left(ahead);
                self.run.set_message(format!("trial {number} of {of}{left}"));
                self.trial = trial_name(&trial);
                if attempt > 1 {
                    self.trial.push_str(&format!(", attempt {attempt}"));
                }
                self.now.set_message(self.trial.clone());
            }
            Progress::State { what } => self.now.set_message(format!("{}: {what}", self.trial)),
            Progress::PhaseStarted { phase, who, goal } => {
                self.rate = Rate::default();
                self.goal = Some(goal);
                self.phase = format!("{phase} ({who})");
                self.now.set_message(format!("{}: {}", self.trial, self.phase));
            }
            Progress::Tick(tick) => self.tick(&tick),
            Progress::Alive => {}
            Progress::TrialEnded { outcome } => {
                self.run.inc(1);
                self.line(&format!("{}: {}", outcome.trial, ended(&outcome)));
            }
            Progress::BlockEnded { block, of } => {
                self.line(&block_ended(block, of));
            }
        }
    }

    fn tick(&mut self, tick: &LoadTick) {
        let rate = self.rate.at(tick);
        self.now.set_message(format!(
            "{}: {} {:.0} %, {} ok, {} failed, {} in flight, {rate:.0} tok/s (chunks)",
            self.trial,
            self.phase,
            self.goal.map_or(0.0, |goal| goal.percent(tick)),
            tick.ok,
            tick.failed,
            tick.in_flight,
        ));
    }

    fn line(&self, text: &str) {
        // A terminal that has gone away is no reason to stop a run.
        self.lines.println(text).ok();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.now.finish_and_clear();
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
