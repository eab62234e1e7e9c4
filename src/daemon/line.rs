//! The sweep line: every planned trial in its order, the report after every block.
//!
//! One bad trial does not end the sweep. Only sweepd's own inability to store does.

use super::attempt::StopRequests;
use super::progress::{Progress, Watcher};
use super::reports::{self, PlanFile};
use super::trial::{self, Number};
use super::version;
use crate::ids::{Name, RunId, TrialId};
use crate::run::FORMAT;
use crate::run::outcome::Ending;
use crate::sample::host;
use crate::stats::data::{Fact, PhasePlan, SamplingParameter, Setup, VariantFacts};
use crate::stats::summary::Summary;
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::sweep::def::{PlannedTrial, Sweep, Variant};
use crate::sweep::plan::plan;
use std::collections::BTreeMap;
use std::path::Path;

/// What all trials of a run share.
pub(crate) struct Context<'a> {
    pub(crate) sweep: &'a Sweep,
    pub(crate) run: &'a RunId,
    pub(crate) dir: &'a RunDir,
    pub(crate) cwd: &'a Path,
    pub(crate) sweepd: &'a Path,
    pub(crate) inherited: &'a BTreeMap<String, String>,
    pub(crate) versions: &'a BTreeMap<Name, String>,
    pub(crate) watcher: &'a Watcher,
}

impl Context<'_> {
    pub(crate) fn version(&self, variant: &Name) -> Option<&str> {
        self.versions.get(variant).map(String::as_str)
    }
}

/// What to run, and with what.
pub(crate) struct Order<'a> {
    pub(crate) sweep: &'a Sweep,
    /// The sweep file's text, kept with the run.
    pub(crate) text: &'a str,
    /// The sweep file's folder.
    pub(crate) cwd: &'a Path,
    pub(crate) sweepd: &'a Path,
    /// sweepd's own environment, of which engines get what their allow-lists name.
    pub(crate) inherited: &'a BTreeMap<String, String>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct RunResult {
    pub(crate) summary: Summary,
    /// Every planned trial ended, and well.
    pub(crate) all_completed: bool,
}

/// Runs the whole sweep into `dir`, which is new.
pub(crate) async fn run(
    order: &Order<'_>,
    dir: &RunDir,
    run: &RunId,
    watcher: &Watcher,
    stop: StopRequests,
) -> Result<RunResult, StoreError> {
    let versions = versions(order).await;
    let planned = plan(order.sweep);
    begin(order, dir, run, &versions, &planned)?;
    let context = Context {
        sweep: order.sweep,
        run,
        dir,
        cwd: order.cwd,
        sweepd: order.sweepd,
        inherited: order.inherited,
        versions: &versions,
        watcher,
    };
    let mut completed = 0;
    let of = planned.len();
    for (index, next) in planned.iter().enumerate() {
        if *stop.borrow() > 0 {
            break;
        }
        let Some(variant) = order.sweep.variants.iter().find(|v| v.name == next.variant) else {
            continue; // The plan is made from these variants.
        };
        let id = TrialId { block: next.block, variant: next.variant.clone() };
        let number = Number { number: index + 1, of };
        let outcome = trial::run(&context, variant, &id, number, &stop).await?;
        completed += usize::from(outcome.ending == Ending::Completed);
        if planned.get(index + 1).is_none_or(|after| after.block != next.block) {
            reports::rewrite(dir)?;
            watcher.say(Progress::BlockEnded { block: next.block, of: order.sweep.blocks.get() });
        }
    }
    let summary = reports::rewrite(dir)?;
    Ok(RunResult { summary, all_completed: completed == of })
}

/// Each variant's engine version; an engine that does not tell has none.
async fn versions(order: &Order<'_>) -> BTreeMap<Name, String> {
    let mut versions = BTreeMap::new();
    for variant in &order.sweep.variants {
        if let Some(version) = version::of(variant, order.sweepd, order.inherited).await {
            versions.insert(variant.name.clone(), version);
        }
    }
    versions
}

/// The run's own files: the sweep, the plan, the machine.
fn begin(
    order: &Order<'_>,
    dir: &RunDir,
    run: &RunId,
    versions: &BTreeMap<Name, String>,
    planned: &[PlannedTrial],
) -> Result<(), StoreError> {
    files::write(&dir.file("sweep.toml"), order.text.as_bytes())?;
    files::write_json(&dir.file("environment.json"), &host::read())?;
    let facts = |variant: &Variant| variant_facts(variant, versions.get(&variant.name).cloned());
    let plan = PlanFile {
        format: FORMAT,
        run: run.clone(),
        sweep: order.sweep.name.clone(),
        setup: setup(order.sweep),
        variants: order.sweep.variants.iter().map(facts).collect(),
        phases: order
            .sweep
            .phases
            .iter()
            .map(|phase| PhasePlan {
                name: phase.name.clone(),
                users: phase.users.get(),
                min_requests: phase.min_requests,
                min_duration_s: phase.min_duration.as_secs_f64(),
            })
            .collect(),
        planned: planned.to_vec(),
    };
    files::write_json(&dir.file("plan.json"), &plan)
}

fn setup(sweep: &Sweep) -> Setup {
    Setup {
        endpoint: sweep.workload.endpoint,
        prompt_tokens: sweep.workload.prompt_tokens.get(),
        output_tokens: sweep.workload.output_tokens.get(),
        blocks: sweep.blocks.get(),
        seed: sweep.seed.value(),
        sampling: sweep
            .sampling
            .0
            .iter()
            .map(|(name, value)| SamplingParameter { name: name.clone(), value: *value })
            .collect(),
        warmup_requests: sweep.warmup.requests,
    }
}

fn variant_facts(variant: &Variant, engine_version: Option<String>) -> VariantFacts {
    VariantFacts {
        name: variant.name.clone(),
        engine: variant.engine.name.clone(),
        engine_version,
        simulated: variant.engine.simulated,
        model: variant.model.served_name.clone(),
        params: variant
            .params
            .iter()
            .map(|(name, value)| Fact { name: name.clone(), value: value.to_string() })
            .collect(),
    }
}
