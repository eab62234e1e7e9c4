//! What someone else needs to run this again.

use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::Table;
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
        let least = format!(
            "{} users, at least {} requests and {} s",
            phase.users, phase.min_requests, phase.min_duration_s
        );
        fact(&format!("phase {}", phase.name), least);
    }
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
    vec![Block::Table(table)]
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
