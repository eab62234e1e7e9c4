//! Each cell against what the GPU's arithmetic and bandwidth allow; or why that cannot be said.

use crate::physics::gpu::Hardware;
use crate::physics::roofline::Bound;
use crate::physics::shape::ModelShape;
use crate::report::block::Block;
use crate::report::figure::percent;
use crate::report::sections::{label, measured};
use crate::report::table::{Entry, Table};
use crate::stats::data::VariantFacts;
use crate::stats::hardware::CellAgainst;
use crate::stats::summary::Summary;
use crate::units::count_f64;
use std::collections::BTreeMap;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    if measured(summary).next().is_none() {
        return Vec::new();
    }
    let mut blocks = absent(summary);
    if summary.against_hardware.is_empty() {
        return blocks;
    }
    let mut reads = Table::new([
        "phase",
        "variant",
        "output tok/s",
        "roofline",
        "share",
        "bound by",
        "MFU",
        "of it prefill",
        "of it decode",
        "MBU",
    ]);
    let mut floors =
        Table::new(["phase", "variant", "TPOT min", "TPOT floor", "TTFT min", "TTFT floor"]);
    for cell in &summary.against_hardware {
        reads.row(row(summary, cell));
        floors.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            cell.min_tpot_ms.into(),
            Some(cell.against.tpot_floor_ms).into(),
            cell.min_ttft_ms.into(),
            Some(cell.against.ttft_floor_ms).into(),
        ]);
    }
    blocks.push(Block::Terms(machines(summary)));
    if summary.status.simulated {
        blocks.push(Block::text(
            "A simulated engine is held against the GPU that it imitates. No GPU was at work, and how near it comes to \
             the roofline was decided by whoever wrote its costs down.",
        ));
    }
    blocks.push(Block::Table(reads));
    blocks.push(Block::text(
        "Roofline: the most output tok/s that this GPU could do with so many users (in an open loop: with the most requests that were in flight at once), prompts included. MFU: the \
         share of its FP16 arithmetic that delivered tokens needed. MBU: the share of its memory bandwidth that \
         decoding must have used, and at most with a pass over the weights for each prefill. The formulas stand \
         under Definitions.",
    ));
    blocks.push(Block::subheading("The fastest requests against their floors, in ms"));
    blocks.push(Block::Table(floors.alike_from(2)));
    blocks
}

fn row(summary: &Summary, cell: &CellAgainst) -> Vec<Entry> {
    let against = &cell.against;
    let bound = match against.roofline_bound {
        Bound::Memory => "memory",
        Bound::Compute => "compute",
    };
    let mbu = match against.mbu_most {
        Some(most) => format!("{:.1} to {:.1} %", against.mbu_least * 100.0, most * 100.0),
        None => format!("at least {}", percent(Some(against.mbu_least))),
    };
    vec![
        cell.phase.as_str().into(),
        label(summary, &cell.variant).into(),
        Some(cell.output_tokens_per_s).into(),
        Some(against.roofline_tokens_per_s).into(),
        percent(Some(against.roofline_share)).into(),
        bound.into(),
        percent(Some(against.mfu)).into(),
        percent(Some(against.mfu_prefill)).into(),
        percent(Some(against.mfu_decode)).into(),
        mbu.into(),
    ]
}

/// Why there is nothing for some variants; each reason once.
fn absent(summary: &Summary) -> Vec<Block> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for variant in &summary.variants {
        if let Some(why) = missing(&variant.facts) {
            reasons.entry(why).or_default().push(label(summary, &variant.facts.name));
        }
    }
    let all = summary.variants.len();
    let said = |(why, names): (String, Vec<String>)| {
        let who =
            if names.len() == all { String::new() } else { format!(" for {}", names.join(", ")) };
        Block::Text(format!("No MFU, MBU and roofline{who}: {why}."))
    };
    reasons.into_iter().map(said).collect()
}

fn missing(facts: &VariantFacts) -> Option<String> {
    let machine = &facts.machine;
    match (&machine.hardware, &machine.shape) {
        (Some(_), Some(_)) => None,
        (None, _) if machine.card.is_some() => Some(format!(
            "the driver calls the GPU {:?}, which no table knows: describe it under `[hardware]`",
            machine.card.as_deref().unwrap_or_default()
        )),
        (None, _) => Some(
            "no driver says which GPU this is, and the sweep has no `[hardware] gpu = \"…\"`"
                .to_owned(),
        ),
        (Some(_), None) => {
            let why = machine.shape_unknown.as_deref().unwrap_or("nobody read the model's files");
            Some(format!("the model's shape is unknown: {why}"))
        }
    }
}

/// Hardware and model; once for variants that share them.
fn machines(summary: &Summary) -> Vec<(String, String)> {
    let mut groups: Vec<(&Hardware, &ModelShape, Vec<String>)> = Vec::new();
    for variant in &summary.variants {
        let machine = &variant.facts.machine;
        let (Some(hardware), Some(shape)) = (&machine.hardware, &machine.shape) else { continue };
        let name = label(summary, &variant.facts.name);
        match groups.iter_mut().find(|(h, s, _)| *h == hardware && *s == shape) {
            Some((.., names)) => names.push(name),
            None => groups.push((hardware, shape, vec![name])),
        }
    }
    let one = |(hardware, shape, names): (&Hardware, &ModelShape, Vec<String>)| {
        (names.join(", "), format!("{}; {}", gpu_text(hardware), model_text(hardware, shape)))
    };
    groups.into_iter().map(one).collect()
}

fn gpu_text(hardware: &Hardware) -> String {
    let gpu = &hardware.gpu;
    let (many, each) = match hardware.count {
        1 => (String::new(), ""),
        count => (format!("{count} x "), " each"),
    };
    format!(
        "{many}{}, {} TFLOPS FP16 dense and {} GB/s{each} ({})",
        gpu.name, gpu.fp16_tflops, gpu.bandwidth_gb_s, gpu.source
    )
}

fn model_text(hardware: &Hardware, shape: &ModelShape) -> String {
    let billions = |parameters: u64| format!("{:.2} B", count_f64(parameters) / 1e9);
    let active = if shape.active_parameters == shape.parameters {
        String::new()
    } else {
        format!(", {} of them active", billions(shape.active_parameters))
    };
    let attention = &shape.attention;
    let bits = hardware.kv_cache_bits.map_or(attention.kv_number_bits, u64::from);
    format!(
        "{} parameters{active}, {:.2} GB of weights, {} KiB of KV cache a token at {bits} bits ({})",
        billions(shape.parameters),
        count_f64(shape.weight_bytes) / 1e9,
        attention.kv_numbers_per_token() * bits / 8 / 1024,
        shape.source.text()
    )
}

#[cfg(test)]
mod tests {
    use crate::stats::fixture::{run, with_a_machine};
    use crate::stats::summary::summarise;

    #[track_caller]
    fn section(data: &crate::stats::data::RunData) -> String {
        let report = crate::report::markdown(&summarise(data));
        let from = report.find("## Against the hardware").unwrap();
        let rest = &report[from..];
        rest[..rest[3..].find("\n## ").unwrap() + 4].to_owned()
    }

    #[test]
    fn a_section_with_something_impossible() {
        insta::assert_snapshot!(section(&with_a_machine(run(), 1500.0)));
    }

    #[test]
    fn a_missing_shape_is_explained_for_those_that_lack_it() {
        let mut data = with_a_machine(run(), 20_000.0);
        data.variants[1].machine.shape = None;
        data.variants[1].machine.shape_unknown = Some("config.json has no `hidden_size`".into());
        let said = section(&data);
        assert!(said.contains("for sim-b (simulated): the model's shape is unknown"), "{said}");
        assert!(said.contains("sim-a (simulated)"), "{said}");
    }
}
