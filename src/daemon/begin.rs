//! A run's first files: the sweep, the plan, the machine, and which engines are installed.

use super::order::Order;
use super::reports::PlanFile;
use super::version;
use crate::ids::{Name, RunId};
use crate::run::FORMAT;
use crate::sample::host;
use crate::stats::data::{Fact, PhasePlan, SamplingParameter, Setup, VariantFacts};
use crate::store::dirs::RunDir;
use crate::store::files::{self, StoreError};
use crate::sweep::def::{PlannedTrial, Sweep, Variant};
use std::collections::BTreeMap;

/// Each variant's engine version; an engine that does not tell has none.
pub(super) async fn versions(order: &Order<'_>) -> BTreeMap<Name, String> {
    let mut versions = BTreeMap::new();
    for variant in &order.sweep.variants {
        if let Some(version) = version::of(variant, order.sweepd, order.inherited).await {
            versions.insert(variant.name.clone(), version);
        }
    }
    versions
}

/// The run's own files: the sweep, the plan, the machine.
pub(super) fn write(
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
