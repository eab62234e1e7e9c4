//! Progress as lines, for logs and pipes: changes, and a sign of life every ten seconds.
#![expect(clippy::print_stderr, reason = "progress goes to stderr")]

use super::terminal::{Rate, block_ended, ended, left};
use crate::daemon::progress::Progress;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Lines {
    trial: String,
    rate: Rate,
    next_tick: Duration,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { trial: String::new(), rate: Rate::default(), next_tick: EVERY }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        match progress {
            Progress::TrialStarted { number, of, left: ahead, trial, attempt } => {
                self.trial = trial.to_string();
                let again =
                    if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let left = left(ahead);
                eprintln!("[{number}/{of}] {trial}{again}{left}");
            }
            Progress::State { what } => eprintln!("  {}: {what}", self.trial),
            Progress::PhaseStarted { phase, who, goal } => {
                (self.rate, self.next_tick) = (Rate::default(), EVERY);
                eprintln!("  {}: phase {phase}, {who}, {goal}", self.trial);
            }
            Progress::Tick(tick) => {
                let rate = self.rate.at(&tick);
                if Duration::from_nanos(tick.elapsed_ns) >= self.next_tick {
                    self.next_tick += EVERY;
                    eprintln!(
                        "  {}: {} ok, {} failed, {} in flight, {rate:.0} chunks/s",
                        self.trial, tick.ok, tick.failed, tick.in_flight
                    );
                }
            }
            Progress::Alive => {}
            Progress::TrialEnded { outcome } => eprintln!("  {}: {}", self.trial, ended(&outcome)),
            Progress::BlockEnded { block, of } => {
                eprintln!("{}", block_ended(block, of));
            }
        }
    }
}
