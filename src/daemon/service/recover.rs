//! A run as its folder tells it: what was planned, decided and ended.
//!
//! Invariant: the same folder gives the same entry, whoever reads it and how often. Only `repair`
//! writes, and only to finish what was decided before sweepd died.

use crate::daemon::begin;
use crate::daemon::queue::{Entry, SlotState};
use crate::daemon::reports::{Origin, PlanFile};
use crate::ids::{RunId, TrialId};
use crate::run::outcome::{Ending, TrialOutcome};
use crate::store::control::{self, Change, ControlLine, Retrial};
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;
use crate::store::index::{IndexedRun, IndexedTrial, seconds_between};

/// Everything that a run folder says, but for what was measured.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) entry: Entry,
    pub(crate) trials: Vec<IndexedTrial>,
    /// When its last report was made, if it has ended.
    pub(crate) ended: Option<String>,
}

/// A run's sweep as it was submitted.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

pub(crate) fn frozen(dir: &RunDir) -> Result<Frozen, StoreError> {
    let path = dir.file("sweep.toml");
    let text = std::fs::read_to_string(&path).map_err(StoreError::io("read", &path))?;
    let plan = dir.file("plan.json");
    let origin = begin::read(dir)?.and_then(|plan| plan.origin);
    let origin = origin.ok_or_else(|| StoreError::damaged(&plan, "it names no sweep file"))?;
    Ok(Frozen { text, origin })
}

/// Whether the folder's reader also finishes what was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Look,
    Repair,
}

/// `None` for a folder that holds no run which was submitted to a daemon.
pub(crate) fn load(dir: &RunDir, mode: Mode) -> Result<Option<Loaded>, StoreError> {
    let Some(plan) = begin::read(dir)? else { return Ok(None) };
    let lines = control::read(&dir.file("control.jsonl"))?;
    if !lines.iter().any(|line| matches!(line.change, Change::Submitted { .. })) {
        return Ok(None);
    }
    let (mut entry, mut trials) = planned(dir, &plan)?;
    for line in &lines {
        replay(dir, &mut entry, &mut trials, line, mode)?;
    }
    entry.interrupted = is_interrupted(dir, &entry)?;
    let ended = lines.iter().rev().find_map(|line| match line.change {
        Change::Ended {} => Some(Some(line.at.clone())),
        Change::Retried { .. } => Some(None),
        _ => None,
    });
    Ok(Some(Loaded { entry, trials, ended: ended.flatten() }))
}

/// Every planned trial, and what those with an outcome came to.
fn planned(dir: &RunDir, plan: &PlanFile) -> Result<(Entry, Vec<IndexedTrial>), StoreError> {
    let mut entry = Entry::of(plan);
    let mut trials = Vec::new();
    for slot in &mut entry.slots {
        if let Some(outcome) = dir.read_outcome(&slot.trial)? {
            let trial = indexed(&outcome);
            slot.state = SlotState::Ended(trial.ending.clone());
            trials.push(trial);
        }
    }
    Ok((entry, trials))
}

fn replay(
    dir: &RunDir,
    entry: &mut Entry,
    trials: &mut Vec<IndexedTrial>,
    line: &ControlLine,
    mode: Mode,
) -> Result<(), StoreError> {
    let Change::Retried { by, trials: retrials } = &line.change else {
        entry.apply(&line.change, &line.at);
        return Ok(());
    };
    // An outcome of a later attempt is what the retry came to.
    let is_open = |retrial: &Retrial| {
        let ended = trials.iter().find(|trial| trial.trial == retrial.trial);
        ended.is_none_or(|ended| ended.attempts <= retrial.after_attempt)
    };
    let open: Vec<Retrial> = retrials.iter().filter(|retrial| is_open(retrial)).cloned().collect();
    for retrial in &open {
        trials.retain(|trial| trial.trial != retrial.trial);
        if mode == Mode::Repair && dir.is_finished(&retrial.trial) {
            dir.reopen_trial(&retrial.trial)?;
        }
    }
    entry.apply(&Change::Retried { by: by.clone(), trials: open }, &line.at);
    Ok(())
}

/// At least one of its trials was under way when sweepd ended.
fn is_interrupted(dir: &RunDir, entry: &Entry) -> Result<bool, StoreError> {
    // Blocks are done in order: only trials of the first that waits can have been begun.
    let mut waiting = entry.slots.iter().filter(|slot| slot.state == SlotState::Waiting).peekable();
    let block = waiting.peek().map(|slot| slot.trial.block);
    for slot in waiting.take_while(|slot| Some(slot.trial.block) == block) {
        let last = dir.last_attempt(&slot.trial)?;
        if last == 0 {
            continue;
        }
        let outcome = dir.attempt(&slot.trial, last).read_outcome()?;
        if outcome.is_none_or(|outcome| matches!(outcome.ending, Ending::Interrupted { .. })) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn indexed(outcome: &TrialOutcome) -> IndexedTrial {
    IndexedTrial {
        trial: outcome.trial.clone(),
        ending: outcome.ending.word().to_owned(),
        attempts: outcome.attempts,
        seconds: seconds_between(&outcome.started, &outcome.ended),
    }
}

impl Loaded {
    /// All of it has ended, and its last report is made.
    pub(crate) fn is_closed(&self) -> bool {
        let ended = |slot: &crate::daemon::queue::Slot| matches!(slot.state, SlotState::Ended(_));
        self.ended.is_some() && self.entry.slots.iter().all(ended)
    }

    pub(crate) fn indexed(&self, id: &RunId) -> IndexedRun {
        let completed = self.trials.iter().filter(|trial| trial.ending == "completed").count();
        IndexedRun {
            id: id.clone(),
            sweep: self.entry.sweep.clone(),
            state: match (self.is_closed(), self.entry.cancelled) {
                (false, _) => "open",
                (true, true) => "cancelled",
                (true, false) => "ended",
            }
            .to_owned(),
            priority: self.entry.schedule.priority,
            submitted: self.entry.submitted.clone(),
            ended: self.ended.clone(),
            planned: self.entry.slots.len() as u64,
            trials_ended: self.trials.len() as u64,
            trials_completed: completed as u64,
        }
    }
}

/// `01-name`, as a trial's folder is called.
pub(crate) fn trial_id(text: &str) -> Option<TrialId> {
    let (block, variant) = text.split_once('-')?;
    Some(TrialId { block: block.parse().ok()?, variant: crate::ids::Name::new(variant)? })
}
