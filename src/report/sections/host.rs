//! What the host did while phases ran: whose CPU, memory, swap and disk.

use crate::report::block::Block;
use crate::report::sections::label;
use crate::report::table::Table;
use crate::run::host::PhaseHost;
use crate::stats::cell::Cell;
use crate::stats::quantile::mean;
use crate::stats::summary::Summary;
use crate::units::count_f64;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new([
        "phase",
        "variant",
        "engine",
        "client",
        "sweepd",
        "others",
        "of cores",
        "least memory GiB",
        "swap MiB",
        "load",
        "disk read MiB",
        "written MiB",
    ]);
    for cell in &summary.cells {
        let hosts: Vec<&PhaseHost> =
            cell.trials.iter().filter_map(|trial| trial.host.as_ref()).collect();
        if !hosts.is_empty() {
            row(summary, &mut table, cell, &hosts);
        }
    }
    if table.is_empty() {
        return Vec::new();
    }
    vec![
        Block::Table(table),
        Block::text(
            "CPU in cores, mean over the phase and its trials: 1 is one CPU busy all the time. Memory, swap and load: the worst \
             sample of all trials. Disk: of a phase, mean over its trials, all disks and all programs.",
        ),
    ]
}

fn mebibytes(bytes: Option<f64>) -> Option<f64> {
    bytes.map(|bytes| bytes / f64::from(1 << 20))
}

fn row(summary: &Summary, table: &mut Table, cell: &Cell, hosts: &[&PhaseHost]) {
    let over = |value: fn(&PhaseHost) -> Option<f64>| {
        mean(&hosts.iter().filter_map(|host| value(host)).collect::<Vec<_>>())
    };
    let least = hosts.iter().filter_map(|host| host.memory_available_min_bytes).min();
    let swap = hosts.iter().filter_map(|host| host.swap_used_max_bytes).max();
    let load = hosts.iter().filter_map(|host| host.load_1min_max).reduce(f64::max);
    let cpus = hosts.iter().map(|host| host.cpus).max().unwrap_or(0);
    table.row(vec![
        cell.phase.as_str().into(),
        label(summary, &cell.variant).into(),
        over(|host| host.engine_cores).into(),
        over(|host| host.client_cores).into(),
        over(|host| host.sweepd_cores).into(),
        over(|host| host.other_cores).into(),
        cpus.to_string().into(),
        least.map(|bytes| count_f64(bytes) / f64::from(1 << 30)).into(),
        mebibytes(swap.map(count_f64)).into(),
        load.into(),
        mebibytes(over(|host| host.disk_read_bytes.map(count_f64))).into(),
        mebibytes(over(|host| host.disk_written_bytes.map(count_f64))).into(),
    ]);
}
