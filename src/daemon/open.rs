//! A run that is being worked on: begun or taken up again, then its trials, in their lanes.
//!
//! Invariant: whoever has one of these holds the run's lock.

use super::lanes::{Lanes, Turn};
use super::order::{Context, Order};
use super::policy;
use super::progress::Watcher;
use super::reports::{self, PlanFile};
use super::stopping::Stopping;
use super::trial::{self, Number};
use super::{begin, provenance, resume};
use super::{estimate, learned};
use crate::ids::{Name, RunId, TrialId};
use crate::run::outcome::TrialOutcome;
use crate::stats::summary::Summary;
use crate::store::control::{self, Change};
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::store::lock::RunLock;
use crate::sweep::def::PlannedTrial;
use crate::sweep::plan::least_trial;
use crate::sweep::side::{Card, Stand};
use crate::sweep::smoke::{self, SMOKE_BLOCK};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::Instrument;

/// A trial that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: TrialOutcome,
    /// All trials of its block have ended, and none is under way.
    pub(crate) ends_block: bool,
}

#[derive(Debug)]
pub(crate) struct OpenRun {
    pub(crate) id: RunId,
    pub(crate) dir: RunDir,
    pub(crate) plan: PlanFile,
    order: Order,
    /// Each variant's engine version; an engine that does not tell has none.
    versions: BTreeMap<Name, String>,
    lanes: Lanes,
    /// The machine's GPUs, where trials may run side by side and the driver tells.
    cards: Option<Vec<Card>>,
    _lock: RunLock,
}

impl OpenRun {
    /// Begins a new run in `dir`, or takes up the one that is there.
    pub(crate) async fn open(
        order: Order,
        dir: RunDir,
        id: RunId,
        lock: RunLock,
    ) -> Result<Self, StoreError> {
        // Before anything is measured: a GPU may still be as a sweepd that is gone had set it.
        for said in order.machine.undo().await {
            tracing::warn!(said, "gpu");
        }
        let versions = begin::versions(&order).await;
        let plan = match begin::read(&dir)? {
            Some(plan) => take_up(&dir, plan, &versions).await?,
            None => begin::write(&order, &dir, &id, &versions)?,
        };
        provenance::write_once(&order, &dir).await?;
        let cards = match plan.side_by_side.lanes.get() {
            1 => None,
            _ => order.machine.cards(order.visible_gpus()).await,
        };
        Ok(Self { id, dir, plan, order, versions, lanes: Lanes::default(), cards, _lock: lock })
    }

    /// The index of the planned trial that is to be started now, beside those under way.
    pub(crate) fn next(&self) -> Option<usize> {
        let stand = |trial: &TrialId| match () {
            () if self.lanes.is_under_way(trial) => Stand::UnderWay,
            () if self.dir.is_finished(trial) => Stand::Over,
            () => Stand::Waiting,
        };
        let trials: Vec<TrialId> = self.plan.planned.iter().map(PlannedTrial::id).collect();
        let stands: Vec<Stand> = trials.iter().map(stand).collect();
        let cards = self.cards();
        self.plan.side_by_side.next(trials.iter().zip(stands), cards.as_deref())
    }

    /// The GPUs that are clean as far as is known; `None` where nobody knows of any.
    pub(crate) fn cards(&self) -> Option<Vec<Card>> {
        self.cards.as_ref().map(|cards| self.order.machine.not_quarantined(cards))
    }

    /// Takes a lane for a planned trial.
    pub(crate) fn enter(&self, index: usize) -> Result<Turn<'_>, StoreError> {
        let trial = self.plan.planned.get(index).map(PlannedTrial::id);
        trial.map(|trial| self.lanes.enter(&trial)).ok_or_else(|| self.unplanned(index))
    }

    fn unplanned(&self, index: usize) -> StoreError {
        let reason = format!("trial {} of the plan has no variant", index + 1);
        StoreError::damaged(&self.dir.file("plan.json"), reason)
    }

    /// The planned trial is a launch before the first block.
    pub(crate) fn is_smoke(&self, index: usize) -> bool {
        self.plan.planned.get(index).is_some_and(|trial| trial.block == SMOKE_BLOCK)
    }

    /// Runs one planned trial to its end, in its lane.
    pub(crate) async fn trial(
        &self,
        turn: Turn<'_>,
        index: usize,
        watcher: &Watcher,
        stopping: &Stopping,
    ) -> Result<Ended, StoreError> {
        let outcome = self.in_lane(&turn, index, watcher, stopping).await?;
        // Its outcome is written: of two that end at once, the one that leaves last ends the block.
        let last = turn.leave();
        Ok(Ended { ends_block: last && self.block_is_done(outcome.trial.block), outcome })
    }

    async fn in_lane(
        &self,
        turn: &Turn<'_>,
        index: usize,
        watcher: &Watcher,
        stopping: &Stopping,
    ) -> Result<TrialOutcome, StoreError> {
        let id = turn.trial.clone();
        let variant = self.order.sweep.variants.iter().find(|v| v.name == id.variant);
        let variant = variant.ok_or_else(|| self.unplanned(index))?;
        let watcher = &watcher.of(&self.id, &id);
        let number = Number { number: index + 1, of: self.plan.planned.len(), left: self.left()? };
        let smoke = (id.block == SMOKE_BLOCK).then(|| smoke::sweep(&self.order.sweep));
        let context = Context {
            sweep: smoke.as_ref().unwrap_or(&self.order.sweep),
            run: &self.id,
            dir: &self.dir,
            cwd: self.order.cwd(),
            sweepd: &self.order.sweepd,
            inherited: &self.order.inherited,
            versions: &self.versions,
            watcher,
            stopping,
            machine: &self.order.machine,
            side: &self.plan.side_by_side,
            turn,
        };
        let skip = policy::skip(&id.variant, &self.ended()?, self.order.sweep.policy);
        if let Some((choice, because)) = skip {
            return trial::skip(&context, variant, &id, choice, because);
        }
        // What is logged meanwhile carries these, in the journal as fields.
        let engine = &variant.engine.name;
        turn.launches();
        let span = tracing::info_span!("trial", run = %self.id, trial = %id, %engine);
        trial::run(&context, variant, &id, number).instrument(span).await
    }

    /// How long the trials that have not ended still take, as far as the ended ones tell.
    fn left(&self) -> Result<Option<Duration>, StoreError> {
        let took = learned::of_run(&self.dir, &self.plan.planned)?;
        let ended = |trial: &PlannedTrial| self.dir.is_finished(&trial.id());
        let ahead: Vec<PlannedTrial> =
            self.plan.planned.iter().filter(|trial| !ended(trial)).cloned().collect();
        let lanes = self.plan.side_by_side.lanes;
        Ok(estimate::left(&ahead, &took, least_trial(&self.order.sweep), lanes))
    }

    /// The trials that have ended, in the plan's order.
    fn ended(&self) -> Result<Vec<TrialOutcome>, StoreError> {
        let read = |planned: &PlannedTrial| self.dir.read_outcome(&planned.id()).transpose();
        self.plan.planned.iter().filter_map(read).collect()
    }

    /// Every trial of the block has ended.
    fn block_is_done(&self, block: u32) -> bool {
        let mut trials = self.plan.planned.iter().filter(|trial| trial.block == block);
        trials.all(|trial| self.dir.is_finished(&trial.id()))
    }

    pub(crate) fn report(&self) -> Result<Summary, StoreError> {
        reports::rewrite(&self.dir)
    }
}

/// Goes on with what an earlier sweepd, or an earlier order, left.
async fn take_up(
    dir: &RunDir,
    mut plan: PlanFile,
    versions: &BTreeMap<Name, String>,
) -> Result<PlanFile, StoreError> {
    files::remove_temporaries(&dir.path)?;
    let control = dir.file("control.jsonl");
    let sweepd = env!("CARGO_PKG_VERSION").to_owned();
    let interrupted = resume::mark_interrupted(dir, &plan).await?;
    let begun =
        control::read(&control)?.iter().any(|line| matches!(line.change, Change::Began { .. }));
    let versions = versions.clone();
    if begun {
        control::append(&control, Change::Resumed { sweepd, versions, interrupted })?;
    } else {
        begin::first_facts(dir, &mut plan, &versions)?;
        control::append(&control, Change::Began { sweepd, versions })?;
    }
    Ok(plan)
}
