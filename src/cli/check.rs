//! `sweepd check SWEEP`: everything that is wrong, or the plan. Nothing is launched.
#![expect(clippy::print_stdout, reason = "the plan is what it prints")]

use super::input;
use crate::sweep::plan::{least_duration, plan};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The sweep file.
    sweep: PathBuf,
    /// The plan as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CheckArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let sweep = input::read_sweep(&arguments.sweep, folders)?.sweep;
    let trials = plan(&sweep);
    let least = least_duration(&sweep);
    if arguments.json {
        let plan = serde_json::json!({
            "sweep": sweep.name,
            "blocks": sweep.blocks,
            "trials": trials,
            "least_duration_s": least.as_secs_f64(),
        });
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}: {} trials in {} blocks", sweep.name, trials.len(), sweep.blocks);
    for block in 1..=sweep.blocks.get() {
        let order: Vec<&str> =
            trials.iter().filter(|t| t.block == block).map(|t| t.variant.as_str()).collect();
        println!("  block {block}: {}", order.join(", "));
    }
    let phases: Vec<String> = sweep.phases.iter().map(|phase| phase.name.to_string()).collect();
    println!("  phases of each trial: {}", phases.join(", "));
    println!("  at least {} by the phases' durations alone", humantime::format_duration(least));
    Ok(ExitCode::SUCCESS)
}
