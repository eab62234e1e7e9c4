//! A sweep file, checked: against itself, the engines that it names and the machine it is on.
//!
//! Invariant: what leaves here can be run, as far as reading files can tell.

use super::containment;
use super::def::{Endpoint, Pattern, Phase, Sampling, Sweep, Variant, Workload};
use super::installed::Installed;
use super::policy;
use super::variants::{self, Surroundings};
use super::{classes, client, cpus, dataset, gpu, load, side, smoke, workload};
use crate::engine::def::EngineDef;
use crate::engine::library::Library;
use crate::engine::request::{SAMPLING, sampling_field, sampling_names};
use crate::form::host::Host;
use crate::form::{self, Field, Fields, Problems, did_you_mean};
use crate::seed::Seed;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

/// The newest schema of sweep files.
const SCHEMA: i64 = 1;
const MOST_BLOCKS: u32 = 1000;

/// Reads the text of a sweep file. Paths in it are relative to the file's folder.
pub(crate) fn parse(
    file: &Path,
    text: &str,
    library: &Library,
    host: &dyn Host,
    installed: &dyn Installed,
) -> Result<Sweep, Problems> {
    form::read(file, text, |_, fields| {
        fields.schema_is_known(SCHEMA).then_some(())?;
        let folder = host.absolute(file).parent().unwrap_or(Path::new("/")).to_owned();
        let (notes, data) = Default::default();
        sweep(fields, &Surroundings { folder, library, host, installed, notes, data })
    })
}

/// Every part is read before the first one that failed ends the matter.
fn sweep(fields: &Fields<'_>, around: &Surroundings<'_>) -> Option<Sweep> {
    let name = fields.required("name").name();
    let seed = fields.optional("seed").integer(0..=i64::MAX).unwrap_or(0);
    let blocks = fields.optional("blocks").count(MOST_BLOCKS).unwrap_or(NonZeroU32::MIN);
    let variants = variants::read(fields, around);
    let classes = classes::read(fields);
    let workload = fields.required("workload").table().and_then(|fields| {
        let workload = workload::read(&fields, around, &classes)?;
        check_endpoint(workload.endpoint, &variants, &fields.optional("endpoint"));
        Some(workload)
    });
    let endpoint = workload.as_ref().map_or(Endpoint::Completions, |workload| workload.endpoint);
    let sampling = sampling(fields, &variants, endpoint);
    let gpu = fields.optional("gpu").table().map(|fields| {
        let plan = gpu::gpu(&fields);
        gpu::check(&plan, &variants, &fields);
        plan
    });
    let deadlines = load::deadlines(fields.optional("deadlines").table().as_ref());
    let phases = load::phases(fields, &deadlines, around, &classes);
    classes::check(&classes, workload.as_ref(), &phases, &fields.optional("classes"));
    check_conversations(workload.as_ref(), &phases, &fields.optional("workload"));
    let most_users = phases.iter().map(load::usual_users).max();
    let smoke_first = smoke::first(fields.optional("smoke").table().as_ref());
    let warmup = load::warmup(fields.optional("warmup").table().as_ref(), most_users);
    let containment = containment::containment(fields.optional("containment").table().as_ref());
    let policy = policy::policy(fields.optional("policy").table().as_ref());
    let lanes = side::lanes(fields, &variants, gpu.as_ref(), around.host.cpus().as_ref());
    let shared = around.host.cpus().and_then(|cpus| cpus::shared_cores(&lanes.cpus, &cpus));
    around.notes.borrow_mut().extend(shared);
    let mut sweep = Sweep {
        name: name?,
        seed: Seed::new(u64::try_from(seed).ok()?),
        blocks,
        variants: at_least_one(variants)?,
        sampling,
        workload: workload?,
        classes,
        smoke_first,
        warmup,
        phases: at_least_one(phases)?,
        deadlines,
        notes: around.notes.take(),
        data: around.data.take().into_iter().collect(),
        containment,
        policy,
        lanes,
        loops: client::loops(fields.optional("client").table().as_ref()),
        gpu,
    };
    sweep.notes.extend(dataset::notes(&sweep));
    Some(sweep)
}

fn at_least_one<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// The engines of the variants, each once.
fn engines(variants: &[Variant]) -> impl Iterator<Item = &EngineDef> {
    let by_name: BTreeMap<_, _> =
        variants.iter().map(|variant| (&variant.engine.name, variant.engine.as_ref())).collect();
    by_name.into_values()
}

/// What is not sent explicitly is left to the engine's own defaults, which differ.
fn sampling(fields: &Fields<'_>, variants: &[Variant], endpoint: Endpoint) -> Sampling {
    let mut values = BTreeMap::from([("temperature".to_owned(), 0.0)]);
    let Some(table) = fields.optional("sampling").table() else { return Sampling(values) };
    for (key, at, field) in table.each() {
        let Some(param) = SAMPLING.iter().find(|param| param.name == key) else {
            let help = did_you_mean(key, &sampling_names(), "sampling parameters:");
            let message = format!("`{key}` is no sampling parameter");
            table.form().problem(at, message, Some(help));
            continue;
        };
        let value = field.float(param.range.clone());
        if param.is_whole && value.is_some_and(|value| value.fract() != 0.0) {
            field.problem("expected a whole number", None);
        }
        values.extend(value.map(|value| (key.to_owned(), value)));
        let errors = engines(variants).filter_map(|engine| {
            sampling_field(engine.name.as_str(), &engine.request, endpoint, key).err()
        });
        for error in errors {
            table.form().problem(at, error.to_string(), Some(error.help));
        }
    }
    Sampling(values)
}

/// A conversation is one user's; an open loop has requests and no users.
fn check_conversations(workload: Option<&Workload>, phases: &[Phase], field: &Field<'_>) {
    let talks = workload.is_some_and(|workload| workload.shape.carries_on());
    if talks && phases.iter().any(|phase| matches!(phase.pattern, Pattern::Open(_))) {
        let help = "give the phases `users` and `think_time` instead of a rate".to_owned();
        field.problem("conversations need closed loops", Some(help));
    }
}

fn check_endpoint(endpoint: Endpoint, variants: &[Variant], field: &Field<'_>) {
    for engine in engines(variants) {
        if engine.endpoints.path(endpoint).is_none() {
            let message = format!("engine `{}` has no endpoint `{}`", engine.name, endpoint.name());
            let has = Endpoint::ALL.into_iter().filter(|e| engine.endpoints.path(*e).is_some());
            let has: Vec<String> = has.map(|endpoint| format!("`{}`", endpoint.name())).collect();
            field.problem(message, Some(format!("it has {}", has.join(" and "))));
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
pub(crate) mod tests;
