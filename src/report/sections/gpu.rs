//! What the GPUs did meanwhile: energy, power, heat, clocks, and what a million tokens cost.

use crate::report::block::Block;
use crate::report::figure::{ABSENT, percent};
use crate::report::sections::label;
use crate::report::table::{Entry, Table};
use crate::stats::cell::Cell;
use crate::stats::gpu::GpuOverTrials;
use crate::stats::interval::OverTrials;
use crate::stats::summary::Summary;
use crate::units::count_f64;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let cells: Vec<(&Cell, &GpuOverTrials)> =
        summary.cells.iter().filter_map(|cell| Some((cell, cell.gpu.as_ref()?))).collect();
    if summary.cells.is_empty() {
        let text = "GPU figures are made of phases with a fixed load, and this run has none. What was sampled during a search's levels \
                    is in their folders.";
        return vec![Block::text(text)];
    }
    if cells.is_empty() {
        return vec![Block::text("no GPU telemetry")];
    }
    let mut blocks = vec![
        Block::Table(energy(summary, &cells)),
        Block::text(
            "Energy of the whole phase and all GPUs of the trial, ramp and drain included, idle power too; mean over trials. \
             From the card's counter where it has one, otherwise power summed over time. A dash: no valid figure, and a mark \
             says why. TDP: the card's own power limit.",
        ),
        Block::subheading("Work, heat and clocks"),
        Block::Table(work(summary, &cells)),
        Block::text(
            "Busy: the share of time in which any kernel ran, as the driver tells it; it says nothing about how well. MFU and MBU say that, \
             where hardware and model are known. Headroom: from the highest temperature to where the driver says that it slows \
             down. Drift: the SM clock in the phase's last fifth against its first. Throttled: share of the samples held back by \
             heat, the power cap or a brake. Memory is that of the fullest card, others' processes included; busy and clock are means \
             over the cards; drift and throttled are of the worst card of each trial.",
        ),
    ];
    blocks.extend(costs(summary, &cells));
    blocks
}

fn mean(over: Option<OverTrials>) -> Option<f64> {
    over.map(|over| over.mean)
}

fn start(summary: &Summary, cell: &Cell) -> Vec<Entry> {
    vec![cell.phase.as_str().into(), label(summary, &cell.variant).into()]
}

fn energy(summary: &Summary, cells: &[(&Cell, &GpuOverTrials)]) -> Table {
    let titles = [
        "phase",
        "variant",
        "GPUs",
        "energy J",
        "J / output token",
        "output tok/J",
        "power W",
        "of TDP",
    ];
    let mut table = Table::new(titles);
    for (cell, gpu) in cells {
        let mut row = start(summary, cell);
        row.extend([
            gpu.gpus.to_string().into(),
            gpu.energy_j.into(),
            mean(gpu.joules_per_output_token).into(),
            mean(gpu.output_tokens_per_joule).into(),
            mean(gpu.power_mean_w).into(),
            percent(mean(gpu.power_of_tdp)).into(),
        ]);
        table.row(row);
    }
    table
}

fn work(summary: &Summary, cells: &[(&Cell, &GpuOverTrials)]) -> Table {
    let titles = [
        "phase",
        "variant",
        "busy",
        "MFU",
        "MBU at least",
        "memory GiB",
        "max C",
        "headroom C",
        "SM MHz",
        "drift",
        "throttled",
    ];
    let mut table = Table::new(titles);
    for (cell, gpu) in cells {
        let against = summary
            .against_hardware
            .iter()
            .find(|a| cell.is(&a.variant, &a.phase))
            .map(|found| &found.against);
        let busy = mean(gpu.utilisation_mean_percent).map(|percent| percent / 100.0);
        let memory = gpu.memory_used_max_bytes.map(|b| count_f64(b) / f64::from(1 << 30));
        let whole = |value: Option<String>| value.unwrap_or_else(|| ABSENT.to_owned());
        let mut row = start(summary, cell);
        row.extend([
            percent(busy).into(),
            percent(against.map(|against| against.mfu)).into(),
            percent(against.map(|against| against.mbu_least)).into(),
            memory.into(),
            whole(gpu.temperature_max_c.map(|c| c.to_string())).into(),
            whole(gpu.headroom_c.map(|c| c.to_string())).into(),
            mean(gpu.sm_clock_mean_mhz).into(),
            percent(mean(gpu.sm_clock_drift)).into(),
            percent(mean(gpu.throttled_share)).into(),
        ]);
        table.row(row);
    }
    table
}

/// Only where the sweep says what things cost.
fn costs(summary: &Summary, cells: &[(&Cell, &GpuOverTrials)]) -> Vec<Block> {
    let Some(price) = &summary.setup.price else { return Vec::new() };
    let titles = [
        "phase".to_owned(),
        "variant".to_owned(),
        format!("GPU time, {}", price.currency),
        format!("energy, {}", price.currency),
    ];
    let mut table = Table::new(titles);
    for (cell, _) in cells {
        let cost = cell.cost_per_million;
        let mut row = start(summary, cell);
        row.extend([
            cost.and_then(|cost| cost.gpu_time).into(),
            cost.and_then(|cost| cost.energy).into(),
        ]);
        table.row(row);
    }
    let part = |name: &str, price: Option<f64>, unit: &str| {
        price.map(|value| format!("{name} {value} {unit}"))
    };
    let prices = [
        part("a GPU hour costs", price.gpu_hour, &price.currency),
        part("a kilowatt-hour costs", price.kwh, &price.currency),
    ];
    let prices: Vec<String> = prices.into_iter().flatten().collect();
    vec![
        Block::subheading("Cost of a million output tokens"),
        Block::Table(table.alike_from(2)),
        Block::Text(format!(
            "Of the whole phase, at its own speed: {}. GPU time is what a rented GPU costs, energy what the cards used; they are not to be \
             added where the rent includes it.",
            prices.join(", ")
        )),
    ]
}
