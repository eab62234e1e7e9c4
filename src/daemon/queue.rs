//! What is to be run, and what is to be run next. Pure: changes in, decisions out.
//!
//! Invariants, held by random walks: a trial that has ended is started again only after a retry;
//! within a run trials start in the order of the plan, so blocks are completed in order, and only those
//! of one block run side by side; nothing is started that is paused, cancelled, too early, or cannot end
//! in time.

use super::reports::PlanFile;
use crate::ids::{Name, RunId, TrialId};
use crate::store::control::{Change, Retrial, Schedule};
use crate::sweep::def::PlannedTrial;
use crate::sweep::side::{Card, SideBySide, Stand};
use std::collections::BTreeMap;
use std::time::Duration;

/// Wall time, milliseconds since 1970.
pub(crate) type WallMs = i64;

/// One planned trial of a run in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) trial: TrialId,
    pub(crate) state: SlotState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    Waiting,
    Running,
    /// The outcome's `ending`.
    Ended(String),
    /// Cancelled or left out, and not written down as its outcome yet.
    Dropped {
        cancelled: bool,
        reason: String,
    },
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) sweep: Name,
    pub(crate) schedule: Schedule,
    pub(crate) slots: Vec<Slot>,
    /// Which of its trials may run at once.
    pub(crate) side: SideBySide,
    pub(crate) paused: bool,
    /// Why it cannot go on, until somebody lets it continue.
    pub(crate) held: Option<String>,
    /// One of its trials was under way when sweepd ended: it comes first.
    pub(crate) interrupted: bool,
    pub(crate) submitted: Option<String>,
    pub(crate) cancelled: bool,
}

impl Entry {
    pub(crate) fn new(sweep: Name, planned: impl IntoIterator<Item = TrialId>) -> Self {
        let slot = |trial| Slot { trial, state: SlotState::Waiting };
        Self {
            sweep,
            schedule: Schedule::default(),
            slots: planned.into_iter().map(slot).collect(),
            side: SideBySide::default(),
            paused: false,
            held: None,
            interrupted: false,
            submitted: None,
            cancelled: false,
        }
    }

    /// As its plan says.
    pub(crate) fn of(plan: &PlanFile) -> Self {
        let trials = plan.planned.iter().map(PlannedTrial::id);
        Self { side: plan.side_by_side.clone(), ..Self::new(plan.sweep.clone(), trials) }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.slots.iter().any(|slot| !matches!(slot.state, SlotState::Waiting))
    }

    fn first(&self, is: impl Fn(&SlotState) -> bool) -> Option<usize> {
        self.slots.iter().position(|slot| is(&slot.state))
    }

    /// The trial to start now, beside those that are under way.
    fn next(&self, cards: Option<&[Card]>) -> Option<usize> {
        let stand = |slot: &Slot| match slot.state {
            SlotState::Waiting => Stand::Waiting,
            SlotState::Running => Stand::UnderWay,
            SlotState::Ended(_) | SlotState::Dropped { .. } => Stand::Over,
        };
        self.side.next(self.slots.iter().map(|slot| (&slot.trial, stand(slot))), cards)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.first(|state| *state == SlotState::Running).is_some()
    }

    pub(crate) fn count(&self, is: impl Fn(&SlotState) -> bool) -> usize {
        self.slots.iter().filter(|slot| is(&slot.state)).count()
    }

    pub(crate) fn slot(&mut self, trial: &TrialId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.trial == *trial)
    }

    /// Takes over a decision about this run.
    pub(crate) fn apply(&mut self, change: &Change, at: &str) {
        match change {
            Change::Submitted { schedule, .. } => {
                self.schedule = schedule.clone();
                self.submitted = Some(at.to_owned());
            }
            Change::Moved { schedule, .. } => self.schedule = schedule.clone(),
            Change::Paused { .. } => self.paused = true,
            Change::Continued { .. } => (self.paused, self.held) = (false, None),
            Change::Cancelled { by, trial } => {
                self.cancelled |= trial.is_none();
                self.drop_waiting(trial.as_ref(), true, &format!("cancelled by {by}"));
            }
            Change::LeftOut { reason } => self.drop_waiting(None, false, reason),
            Change::Retried { trials, .. } => self.retry(trials),
            Change::Drained { .. }
            | Change::Began { .. }
            | Change::Resumed { .. }
            | Change::Ended {} => {}
        }
    }

    fn drop_waiting(&mut self, only: Option<&TrialId>, cancelled: bool, reason: &str) {
        let concerned = |slot: &&mut Slot| {
            only.is_none_or(|trial| slot.trial == *trial) && slot.state == SlotState::Waiting
        };
        for slot in self.slots.iter_mut().filter(concerned) {
            slot.state = SlotState::Dropped { cancelled, reason: reason.to_owned() };
        }
    }

    fn retry(&mut self, trials: &[Retrial]) {
        self.cancelled = false;
        for retrial in trials {
            if let Some(slot) = self.slot(&retrial.trial)
                && !matches!(slot.state, SlotState::Running)
            {
                slot.state = SlotState::Waiting;
            }
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    Start {
        run: RunId,
        index: usize,
    },
    /// This dropped trial's outcome is to be written.
    WriteDown {
        run: RunId,
        index: usize,
    },
    /// The rest of this run cannot end in time.
    LeaveOut {
        run: RunId,
        reason: String,
    },
    /// All of its trials have ended.
    Close {
        run: RunId,
    },
    /// Nothing now; look again then, if a time is given.
    Wait {
        until: Option<WallMs>,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Queue {
    pub(crate) paused: bool,
    pub(crate) draining: bool,
    pub(crate) runs: BTreeMap<RunId, Entry>,
}

impl Queue {
    /// Takes over a decision about the whole queue.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Paused { .. } => self.paused = true,
            Change::Continued { .. } => (self.paused, self.draining) = (false, false),
            Change::Drained { .. } => self.draining = true,
            _ => {}
        }
    }

    /// The runs in the order in which they would be worked on.
    pub(crate) fn in_order(&self) -> Vec<(&RunId, &Entry)> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by(|(id_a, a), (id_b, b)| {
            let key = |entry: &Entry| {
                let schedule = &entry.schedule;
                (!entry.interrupted, std::cmp::Reverse(schedule.priority), !entry.has_begun())
            };
            let rank = a.schedule.rank.total_cmp(&b.schedule.rank);
            key(a).cmp(&key(b)).then(rank).then(id_a.cmp(id_b))
        });
        runs
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.runs.values().any(Entry::is_under_way)
    }

    /// `estimate`: how long a variant's trial takes, where that is known. `cards`: the GPUs of a run that
    /// is being worked on, where they are known.
    pub(crate) fn decide(
        &self,
        now: WallMs,
        estimate: impl Fn(&Entry, &Name) -> Option<Duration>,
        cards: impl Fn(&RunId) -> Option<Vec<Card>>,
    ) -> Decision {
        let idle = self.is_idle();
        for (run, entry) in &self.runs {
            if let Some(index) = entry.first(|s| matches!(s, SlotState::Dropped { .. })) {
                return Decision::WriteDown { run: run.clone(), index };
            }
            // While something is measured no report is made.
            if idle && entry.first(|state| !matches!(state, SlotState::Ended(_))).is_none() {
                return Decision::Close { run: run.clone() };
            }
        }
        if self.paused {
            return Decision::Wait { until: None };
        }
        let mut until = None;
        for (run, entry) in self.in_order() {
            let cards = if entry.is_under_way() { cards(run) } else { None };
            let Some(index) = entry.next(cards.as_deref()) else { continue };
            let not_before = entry.schedule.not_before.as_deref().and_then(wall_ms);
            if let Some(time) = not_before.filter(|time| *time > now) {
                until = Some(until.map_or(time, |other: WallMs| other.min(time)));
                continue;
            }
            if !idle && !entry.is_under_way() {
                if entry.paused || entry.held.is_some() {
                    continue;
                }
                // It comes first, but not beside another run's trials: those in front of it end.
                return Decision::Wait { until: None };
            }
            if let Some(reason) = too_late(entry, index, now, &estimate) {
                return Decision::LeaveOut { run: run.clone(), reason };
            }
            if entry.paused || entry.held.is_some() {
                // Its deadline passes all the same.
                let by = entry.schedule.finish_by.as_deref().and_then(wall_ms);
                until = by.map_or(until, |by| Some(until.map_or(by, |other| other.min(by))));
                continue;
            }
            return Decision::Start { run: run.clone(), index };
        }
        Decision::Wait { until }
    }
}

/// Why the trial at `index`, and with it all after it, is not started any more.
fn too_late(
    entry: &Entry,
    index: usize,
    now: WallMs,
    estimate: &impl Fn(&Entry, &Name) -> Option<Duration>,
) -> Option<String> {
    let text = entry.schedule.finish_by.as_deref()?;
    let by = wall_ms(text)?;
    if now >= by {
        return Some(format!("left out: {text} had passed before it could begin"));
    }
    let slot = entry.slots.get(index)?;
    let takes = estimate(entry, &slot.trial.variant)?;
    let end = now.saturating_add(i64::try_from(takes.as_millis()).unwrap_or(i64::MAX));
    (end > by).then(|| {
        let takes = humantime::format_duration(Duration::from_secs(takes.as_secs().max(1)));
        let variant = &slot.trial.variant;
        format!("left out: a trial of {variant} takes about {takes} and would not end by {text}")
    })
}

pub(crate) fn wall_ms(text: &str) -> Option<WallMs> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
