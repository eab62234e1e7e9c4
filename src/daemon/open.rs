//! A run that is being worked on: begun or taken up again, then its trials one by one.
//!
//! Invariant: whoever has one of these holds the run's lock.

use super::order::{Context, Order};
use super::policy;
use super::progress::Watcher;
use super::reports::{self, PlanFile};
use super::stopping::Stopping;
use super::trial::{self, Number};
use super::{begin, provenance, resume};
use super::{estimate, learned};
use crate::ids::{Name, RunId};
use crate::run::outcome::TrialOutcome;
use crate::stats::summary::Summary;
use crate::store::control::{self, Change};
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::store::lock::RunLock;
use crate::sweep::def::PlannedTrial;
use crate::sweep::plan::least_trial;
use crate::sweep::smoke::{self, SMOKE_BLOCK};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::Instrument;

#[derive(Debug)]
pub(crate) struct OpenRun {
    pub(crate) id: RunId,
    pub(crate) dir: RunDir,
    pub(crate) plan: PlanFile,
    order: Order,
    /// Each variant's engine version; an engine that does not tell has none.
    versions: BTreeMap<Name, String>,
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
        Ok(Self { id, dir, plan, order, versions, _lock: lock })
    }

    /// The index of the first planned trial that has not ended.
    pub(crate) fn next(&self) -> Option<usize> {
        self.plan.planned.iter().position(|trial| !self.dir.is_finished(&trial.id()))
    }

    /// The planned trial is a launch before the first block.
    pub(crate) fn is_smoke(&self, index: usize) -> bool {
        self.plan.planned.get(index).is_some_and(|trial| trial.block == SMOKE_BLOCK)
    }

    /// Runs one planned trial to its end.
    pub(crate) async fn trial(
        &self,
        index: usize,
        watcher: &Watcher,
        stopping: &Stopping,
    ) -> Result<TrialOutcome, StoreError> {
        let id = self.plan.planned.get(index).map(PlannedTrial::id);
        let variant = id
            .as_ref()
            .and_then(|id| self.order.sweep.variants.iter().find(|v| v.name == id.variant));
        let (Some(id), Some(variant)) = (id, variant) else {
            let reason = format!("trial {} of the plan has no variant", index + 1);
            return Err(StoreError::damaged(&self.dir.file("plan.json"), reason));
        };
        let number =
            Number { number: index + 1, of: self.plan.planned.len(), left: self.left(index)? };
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
        };
        let skip = policy::skip(&id.variant, &self.ended()?, self.order.sweep.policy);
        if let Some((choice, because)) = skip {
            return trial::skip(&context, variant, &id, choice, because);
        }
        // What is logged meanwhile carries these, in the journal as fields.
        let engine = &variant.engine.name;
        let span = tracing::info_span!("trial", run = %self.id, trial = %id, %engine);
        trial::run(&context, variant, &id, number).instrument(span).await
    }

    /// How long the trials from this one on still take, as far as the ended ones tell.
    fn left(&self, index: usize) -> Result<Option<Duration>, StoreError> {
        let took = learned::of_run(&self.dir, &self.plan.planned)?;
        let ahead = self.plan.planned.get(index..).unwrap_or_default();
        Ok(estimate::left(ahead, &took, least_trial(&self.order.sweep)))
    }

    /// The trials that have ended, in the plan's order.
    fn ended(&self) -> Result<Vec<TrialOutcome>, StoreError> {
        let read = |planned: &PlannedTrial| self.dir.read_outcome(&planned.id()).transpose();
        self.plan.planned.iter().filter_map(read).collect()
    }

    /// Every trial of the block has ended.
    pub(crate) fn block_is_done(&self, block: u32) -> bool {
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
