//! Progress as lines, for logs and pipes: changes, and a sign of life every ten seconds.
#![expect(clippy::print_stderr, reason = "progress goes to stderr")]

use super::terminal::{Rate, block_ended, ended, left};
use crate::daemon::progress::{Progress, Said};
use crate::ids::TrialId;
use std::collections::BTreeMap;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Of the trials that are under way.
    phases: BTreeMap<TrialId, Phase>,
}

/// What the lines of a phase go by.
#[derive(Debug)]
struct Phase {
    rate: Rate,
    next_tick: Duration,
}

impl Default for Phase {
    fn default() -> Self {
        Self { rate: Rate::default(), next_tick: EVERY }
    }
}

impl Lines {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn show(&mut self, said: Said) {
        if let Progress::BlockEnded { block, of } = said.progress {
            eprintln!("{}", block_ended(block, of));
        }
        let Some(subject) = said.of else { return };
        let trial = &subject.trial;
        match said.progress {
            Progress::TrialStarted { number, of, left: ahead, attempt } => {
                let again =
                    if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let left = left(ahead);
                eprintln!("[{number}/{of}] {trial}{again}{left}");
            }
            Progress::State { what } => eprintln!("  {trial}: {what}"),
            Progress::PhaseStarted { phase, who, goal } => {
                self.phases.insert(trial.clone(), Phase::default());
                eprintln!("  {trial}: phase {phase}, {who}, {goal}");
            }
            Progress::Tick(tick) => {
                let phase = self.phases.entry(trial.clone()).or_default();
                let rate = phase.rate.at(&tick);
                if Duration::from_nanos(tick.elapsed_ns) >= phase.next_tick {
                    phase.next_tick += EVERY;
                    eprintln!(
                        "  {trial}: {} ok, {} failed, {} in flight, {rate:.0} chunks/s",
                        tick.ok, tick.failed, tick.in_flight
                    );
                }
            }
            Progress::TrialEnded { outcome } => {
                self.phases.remove(trial);
                eprintln!("  {trial}: {}", ended(&outcome));
            }
            Progress::Alive | Progress::Opened | Progress::BlockEnded { .. } => {}
        }
    }
}
