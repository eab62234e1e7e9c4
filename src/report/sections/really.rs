//! What really ran: the configuration that each engine read back, and where it is not the asked one.

use crate::report::block::Block;
use crate::report::figure::ABSENT;
use crate::report::sections::{block_list, label};
use crate::report::table::Table;
use crate::run::effective::{Difference, EffectiveConfig};
use crate::stats::summary::{Summary, VariantSummary};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let names: BTreeSet<&String> = summary
        .variants
        .iter()
        .flat_map(|v| configs(summary, v))
        .flat_map(|(_, c)| c.values.keys())
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let mut header = vec!["variant".to_owned()];
    header.extend(names.iter().map(|name| (*name).clone()));
    let mut table = Table::new(header);
    for variant in &summary.variants {
        let own: Vec<(u32, &EffectiveConfig)> = configs(summary, variant).collect();
        let mut row = vec![label(summary, &variant.facts.name).into()];
        row.extend(names.iter().map(|name| value(&own, name).into()));
        table.row(row);
    }
    let unknown: BTreeSet<String> = summary
        .variants
        .iter()
        .flat_map(|v| configs(summary, v).map(move |(_, config)| (v, config)))
        .flat_map(|(v, config)| config.unknown.iter().map(|n| format!("{n} of {}", v.facts.name)))
        .collect();
    let mut blocks = vec![
        Block::Table(table),
        Block::text(
            "Read back from each engine when it was ready: from its server, its log or its metrics. Several values: not \
             the same in every block. A dash: the engine does not tell.",
        ),
    ];
    if !unknown.is_empty() {
        let list: Vec<String> = unknown.into_iter().collect();
        blocks.push(Block::text(format!("Not told, so not checked: {}.", list.join(", "))));
    }
    blocks
}

/// One notice a variant, for page one; none where all ran as asked.
pub(super) fn notices(summary: &Summary) -> Vec<Block> {
    summary.variants.iter().filter_map(|variant| notice(summary, variant)).collect()
}

fn notice(summary: &Summary, variant: &VariantSummary) -> Option<Block> {
    let mut seen: BTreeMap<(&String, &String, &String), Vec<u32>> = BTreeMap::new();
    for (block, config) in configs(summary, variant) {
        for Difference { name, asked, found } in &config.differences {
            let blocks = seen.entry((name, asked, found)).or_default();
            if blocks.last() != Some(&block) {
                blocks.push(block);
            }
        }
    }
    let texts: Vec<String> = seen
        .into_iter()
        .map(|((name, asked, found), blocks)| {
            format!("{name} {found} instead of {asked} ({})", block_list(&blocks))
        })
        .collect();
    (!texts.is_empty()).then(|| {
        Block::Notice(format!(
            "NOT AS ASKED: {} ran with {}. Its figures are of what ran.",
            label(summary, &variant.facts.name),
            texts.join("; ")
        ))
    })
}

/// Of the variant's attempts that became ready, with their block.
fn configs<'s>(
    summary: &'s Summary,
    variant: &'s VariantSummary,
) -> impl Iterator<Item = (u32, &'s EffectiveConfig)> {
    let own = summary.trials.iter().filter(|trial| trial.variant == variant.facts.name);
    own.flat_map(|trial| {
        let configs = trial.attempts.iter().filter_map(|attempt| attempt.effective.as_ref());
        configs.map(|config| (trial.block, config))
    })
}

/// The value in all blocks, or all values that there were.
fn value(configs: &[(u32, &EffectiveConfig)], name: &String) -> String {
    let mut values: Vec<&str> = Vec::new();
    for value in configs.iter().filter_map(|(_, config)| config.values.get(name)) {
        if !values.contains(&value.as_str()) {
            values.push(value);
        }
    }
    if values.is_empty() { ABSENT.to_owned() } else { values.join(", ") }
}
