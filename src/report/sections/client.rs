//! What the measuring itself cost, so that the reader can judge whether it was in the way.

use crate::report::block::Block;
use crate::report::figure::{ABSENT, percent};
use crate::report::sections::label;
use crate::report::table::Table;
use crate::run::calibration::Calibration;
use crate::stats::metric::share;
use crate::stats::summary::Summary;
use crate::units::count_f64;

pub(super) fn blocks(summary: &Summary) -> Vec<Block> {
    let mut table = Table::new([
        "phase",
        "variant",
        "CPU s",
        "CPU s per million tokens",
        "of one CPU",
        "read lag p99 ms",
        "send lag p99 ms",
        "longest turn ms",
        "stalls",
        "nice",
        "peak MiB",
        "coalesced reads",
    ]);
    for cell in summary.cells.iter().filter(|cell| !cell.trials.is_empty()) {
        let client = &cell.client;
        table.row(vec![
            cell.phase.as_str().into(),
            label(summary, &cell.variant).into(),
            Some(client.cpu_s).into(),
            cell.client_cpu_s_per_million_output_tokens.into(),
            percent(Some(client.cpu_share)).into(),
            client.read_lag_p99_ms.into(),
            client.send_lag_p99_ms.into(),
            Some(client.max_turn_gap_ms).into(),
            u64::from(client.stalls).into(),
            client.niceness.map_or_else(|| ABSENT.to_owned(), |nice| nice.to_string()).into(),
            Some(count_f64(client.max_rss_bytes) / 1_048_576.0).into(),
            percent(share(client.coalesced_reads, client.reads)).into(),
        ]);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![
        Block::Table(table),
        Block::text(
            "CPU time of the load process, user and system, over all trials; its loop is one thread, and its share of one \
             CPU is that of the worst trial. Read lag: from a packet's arrival to its read, a bound. Send lag: from the time \
             a request was due to its first byte, less connecting. Longest turn: the longest time between two looks at the \
             sockets, a stall if over 50 ms; the kernel stamps what arrives meanwhile. Nice: the loop's priority; where it waits for a \
             CPU for a fifth of the time it takes -10, if it may (CAP_SYS_NICE, or a limit on nice).",
        ),
    ];
    blocks.extend(calibrated(summary));
    blocks
}

fn calibrated(summary: &Summary) -> Vec<Block> {
    let Some(measured) = &summary.calibration else {
        return vec![Block::text(
            "Not calibrated: `sweepd calibrate RUN` measures what the load generator itself adds at these loads.",
        )];
    };
    let text = format!(
        "Measured at {} against a server of sweepd's own that streams at times it knows, at the concurrency and pace of \
         these phases (a longer prefill is cut to 200 ms). An error is what was reported less what was true; what is \
         left of one CPU is the headroom of the loop.",
        measured.at
    );
    vec![Block::subheading("Calibration"), Block::Table(calibration(measured)), Block::Text(text)]
}

/// A line for each concurrency and pace.
pub(crate) fn calibration(measured: &Calibration) -> Table {
    let mut table = Table::new([
        "users",
        "TTFT ms",
        "gap ms",
        "tok/s",
        "requests",
        "failed",
        "TTFT p50 error ms",
        "TTFT p99 error ms",
        "ITL p99 error ms",
        "gaps with bounds only",
        "of one CPU",
    ]);
    // The errors are microseconds in milliseconds, which a column's common precision would hide.
    let fine =
        |error: Option<f64>| error.map_or_else(|| ABSENT.to_owned(), |ms| format!("{ms:+.3}"));
    for point in &measured.points {
        table.row(vec![
            u64::from(point.users).into(),
            Some(point.ttft_ms).into(),
            Some(point.gap_ms).into(),
            Some(point.tokens_per_s).into(),
            point.requests.into(),
            point.failed.into(),
            fine(point.ttft_p50_error_ms).into(),
            fine(point.ttft_p99_error_ms).into(),
            fine(point.itl_p99_error_ms).into(),
            percent(point.bounds_only_share).into(),
            percent(Some(point.cpu_share)).into(),
        ]);
    }
    table
}
