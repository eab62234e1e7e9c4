//! A run's first files: the sweep, the plan, the machine, and which engines are installed.

use super::order::Order;
use super::reports::PlanFile;
use super::version;
use crate::engine::def::ParamValue;
use crate::ids::{Name, RunId};
use crate::run::FORMAT;
use crate::sample::{host, model};
use crate::stats::data::{Fact, MachineFacts, PhasePlan, SamplingParameter, Setup, VariantFacts};
use crate::store::control::{self, Change};
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::sweep::def::{Pattern, Phase, Sweep, Variant};
use crate::sweep::plan::plan;
use crate::sweep::side::SideBySide;
use crate::sweep::smoke;
use std::collections::BTreeMap;

/// Each variant's engine version; an engine that does not tell has none.
pub(super) async fn versions(order: &Order) -> BTreeMap<Name, String> {
    let mut versions = BTreeMap::new();
    let run_as = order.sweep.containment.run_as.as_ref();
    for variant in &order.sweep.variants {
        if let Some(version) = version::of(variant, &order.sweepd, &order.inherited, run_as).await {
            versions.insert(variant.name.clone(), version);
        }
    }
    versions
}

/// The plan of a run that was begun or submitted.
pub(crate) fn read(dir: &RunDir) -> Result<Option<PlanFile>, StoreError> {
    files::read_json_if_there(&dir.file("plan.json"))
}

/// A new run's own files: the sweep, the machine, the plan.
pub(super) fn write(
    order: &Order,
    dir: &RunDir,
    run: &RunId,
    versions: &BTreeMap<Name, String>,
) -> Result<PlanFile, StoreError> {
    let mut plan = freeze(order, dir, run)?;
    first_facts(dir, &mut plan, versions)?;
    let sweepd = env!("CARGO_PKG_VERSION").to_owned();
    let began = Change::Began { sweepd, versions: versions.clone() };
    control::append(&dir.file("control.jsonl"), began)?;
    Ok(plan)
}

/// What is known before anything runs. With `plan.json`, which is last, the run is one.
pub(crate) fn freeze(order: &Order, dir: &RunDir, run: &RunId) -> Result<PlanFile, StoreError> {
    files::write(&dir.file("sweep.toml"), order.text.as_bytes())?;
    files::write_json(&dir.file("environment.json"), &host::read())?;
    let sweep = &order.sweep;
    let phase = |phase: &Phase| PhasePlan {
        name: phase.name.clone(),
        users: phase.users.get(),
        min_requests: phase.min_requests,
        min_duration_s: phase.min_duration.as_secs_f64(),
        open: match &phase.pattern {
            Pattern::Closed { .. } => None,
            Pattern::Open(schedule) => Some(schedule.describe()),
            // Their levels are not known beforehand.
            Pattern::Search(_) => None,
        },
    };
    let search = |phase: &Phase| match &phase.pattern {
        Pattern::Search(search) => Some((phase.name.clone(), search.clone())),
        Pattern::Closed { .. } | Pattern::Open(_) => None,
    };
    let plan = PlanFile {
        format: FORMAT,
        run: run.clone(),
        sweep: sweep.name.clone(),
        setup: setup(sweep),
        variants: sweep.variants.iter().map(variant_facts).collect(),
        phases: sweep.phases.iter().filter(|p| search(p).is_none()).map(phase).collect(),
        searches: sweep.phases.iter().filter_map(search).collect(),
        planned: [smoke::planned(sweep), plan(sweep)].concat(),
        side_by_side: SideBySide::of(sweep.lanes.count, sweep.gpu.as_ref(), &sweep.variants),
        origin: Some(order.origin.clone()),
    };
    files::write_json(&dir.file("plan.json"), &plan)?;
    Ok(plan)
}

/// What only the first start can tell: the machine, and the installed engines.
pub(super) fn first_facts(
    dir: &RunDir,
    plan: &mut PlanFile,
    versions: &BTreeMap<Name, String>,
) -> Result<(), StoreError> {
    for variant in &mut plan.variants {
        variant.engine_version = versions.get(&variant.name).cloned();
    }
    files::write_json(&dir.file("environment.json"), &host::read())?;
    files::write_json(&dir.file("plan.json"), plan)
}

fn setup(sweep: &Sweep) -> Setup {
    Setup {
        endpoint: sweep.workload.endpoint,
        prompt_tokens: sweep.workload.prompt_tokens.get(),
        output_tokens: sweep.workload.output_tokens.get(),
        prompt_tokens_vary: sweep.workload.shape.prompts_vary(),
        output_tokens_vary: sweep.workload.shape.answers_vary(),
        workload: sweep.workload.shape.describe(),
        blocks: sweep.blocks.get(),
        seed: sweep.seed.value(),
        sampling: sweep
            .sampling
            .0
            .iter()
            .map(|(name, value)| SamplingParameter { name: name.clone(), value: *value })
            .collect(),
        warmup_requests: sweep.warmup.requests,
        side_by_side: sweep.lanes.count.get(),
        cpus: sweep.lanes.cpus.clone(),
        price: sweep
            .gpu
            .as_ref()
            .map(|plan| plan.price.clone())
            .filter(|price| price.gpu_hour.is_some() || price.kwh.is_some()),
    }
}

/// The model's files are read here, once, for what they weigh.
fn machine(variant: &Variant) -> MachineFacts {
    let shape = model::shape(&variant.model.path);
    MachineFacts {
        hardware: variant.hardware.clone(),
        card: None,
        shape: shape.as_ref().ok().copied(),
        shape_unknown: shape.err().map(|why| why.to_string()),
    }
}

fn variant_facts(variant: &Variant) -> VariantFacts {
    VariantFacts {
        machine: machine(variant),
        name: variant.name.clone(),
        engine: variant.engine.name.clone(),
        engine_version: None,
        simulated: variant.engine.simulated,
        model: variant.model.served_name.clone(),
        params: params(variant),
    }
}

/// Parameters by name, then what else stands on the command line.
fn params(variant: &Variant) -> Vec<Fact> {
    let param = |(name, value): (&String, &ParamValue)| Fact {
        name: name.clone(),
        value: value.to_string(),
    };
    let args = variant.args.join(" ");
    let args = (!args.is_empty()).then(|| Fact { name: "args".to_owned(), value: args });
    variant.params.iter().map(param).chain(args).collect()
}
