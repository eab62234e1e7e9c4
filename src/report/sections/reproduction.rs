//! What someone else needs to run this again.

use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::run::cpus::TrialCpus;
use crate::run::provenance::ModelFiles;
use crate::stats::data::PhasePlan;
use crate::stats::summary::Summary;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new(["fact", "value"]);
    let mut fact = |name: &str, value: String| table.row(vec![name.into(), value.into()]);
    let setup = &summary.setup;
    fact("run", summary.run.to_string());
    fact("seed", setup.seed.to_string());
    fact("blocks", setup.blocks.to_string());
    fact("order of trials", order(summary));
    for phase in &summary.phases {
        let who = match &phase.open {
            Some(open) => format!("{open}, at most {} in flight", phase.users),
            None => format!("{} users", phase.users),
        };
        fact(&format!("phase {}", phase.name), format!("{who}{}", least(phase)));
    }
    if let Some(workload) = &setup.workload {
        fact("workload", workload.clone());
    }
    if setup.side_by_side > 1 {
        fact("trials at once", format!("up to {}, of one block", setup.side_by_side));
    }
    fact("CPUs", cpus(&setup.cpus));
    fact("warm-up requests a launch", setup.warmup_requests.to_string());
    let sampling: Vec<String> = setup
        .sampling
        .iter()
        .map(|parameter| format!("{}={}", parameter.name, parameter.value))
        .collect();
    fact("sampling", sampling.join(" "));
    for host in &summary.host {
        fact(&host.name, host.value.clone());
    }
    for stands in summary.provenance.iter().flat_map(|provenance| &provenance.variants) {
        let program = stands.program.clone();
        let versions = stands.versions.iter().map(|(name, version)| format!("{name} {version}"));
        let text: Vec<String> = program.into_iter().chain(versions).collect();
        if !text.is_empty() {
            fact(&format!("{} stands on", label(summary, &stands.variant)), text.join(", "));
        }
    }
    let mut blocks = vec![Block::Table(table)];
    let provenance = || summary.provenance.iter();
    blocks.extend(files("model file", provenance().flat_map(|stands| &stands.models)));
    blocks.extend(files("data file", provenance().flat_map(|stands| &stands.data)));
    blocks
}

/// One entry for each lane of trials that run side by side.
fn cpus(lanes: &[TrialCpus]) -> String {
    match lanes {
        [] => "nothing was bound to any".to_owned(),
        [all] => all.to_string(),
        lanes => {
            let each = (1..).zip(lanes).map(|(lane, cpus)| format!("lane {lane}: {cpus}"));
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

/// What ends the phase, as far as it was said; stages say it themselves.
fn least(phase: &PhasePlan) -> String {
    let requests = (phase.min_requests > 0).then(|| format!("{} requests", phase.min_requests));
    let seconds = (phase.min_duration_s > 0.0).then(|| format!("{} s", phase.min_duration_s));
    let both: Vec<String> = requests.into_iter().chain(seconds).collect();
    if both.is_empty() { String::new() } else { format!(", at least {}", both.join(" and ")) }
}

/// Every file, to tell whether another machine has the same.
fn files<'a>(title: &str, models: impl Iterator<Item = &'a ModelFiles>) -> Option<Block> {
    let mut table = Table::new([title, "bytes", "sampled SHA-256"]);
    for model in models {
        for file in &model.files {
            let short = file.sampled_sha256.get(..16).unwrap_or(&file.sampled_sha256);
            table.row(vec![file.name.as_str().into(), file.bytes.to_string().into(), short.into()]);
        }
    }
    (!table.is_empty()).then_some(Block::Table(table))
}

fn order(summary: &Summary) -> String {
    let mut blocks: Vec<(u32, Vec<String>)> = Vec::new();
    for trial in &summary.trials {
        let name = label(summary, &trial.variant);
        match blocks.last_mut().filter(|(block, _)| *block == trial.block) {
            Some((_, names)) => names.push(name),
            None => blocks.push((trial.block, vec![name])),
        }
    }
    let blocks: Vec<String> =
        blocks.iter().map(|(block, names)| format!("{block}: {}", names.join(", "))).collect();
    blocks.join("; ")
}
