//! `sweepd check SWEEP`: everything that is wrong, or the plan. Nothing is launched without `--launch`.
#![expect(clippy::print_stdout, reason = "the plan is what it prints")]

use super::client::block_on;
use super::launch::{self, Launches};
use super::{input, room};
use crate::daemon::estimate::{self, Took};
use crate::daemon::learned;
use crate::sweep::def::{Pattern, Phase, PlannedTrial, Sweep};
use crate::sweep::plan::{least_duration, least_trial, plan};
use crate::sweep::side::Lanes;
use crate::sweep::smoke;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The sweep file.
    sweep: PathBuf,
    /// The plan as JSON.
    #[arg(long)]
    json: bool,
    /// Launch each variant once, send it one request of the whole length, tear it down.
    #[arg(long)]
    launch: bool,
    /// Where runs are kept: for the room on its disk, and for how long earlier trials took.
    /// Default: $XDG_STATE_HOME/sweepd/runs.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

pub(super) fn run(arguments: &CheckArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let input = input::read_sweep(&arguments.sweep, folders)?;
    let sweep = input.sweep.clone();
    let root = arguments.runs.clone().unwrap_or_else(input::runs_folder);
    room::check(&sweep, &root)?;
    let problems = gpu_problems(&sweep)?;
    // What the GPUs would refuse would refuse every launch.
    let launches =
        (arguments.launch && problems.is_empty()).then(|| launch::run(input)).transpose()?;
    let took = match &launches {
        Some(launches) => launches.took(),
        None => learned::of_earlier(&root, &sweep.name),
    };
    let forecast = Forecast::of(&sweep, &took);
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&as_json(
                &sweep,
                &forecast,
                launches.as_ref(),
                &problems
            ))?
        );
    } else {
        show(&sweep, &forecast, launches.as_ref());
        for problem in &problems {
            println!("  would fail: {problem}");
        }
        if arguments.launch && launches.is_none() {
            println!("  nothing was launched: what would fail comes first");
        }
    }
    let all_work = launches.is_none_or(|launches| launches.all_work());
    Ok(if all_work && problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// How long the sweep takes.
struct Forecast {
    trials: Vec<PlannedTrial>,
    least: Duration,
    /// With loading and tearing down, where launches or earlier runs tell.
    about: Option<Duration>,
}

impl Forecast {
    fn of(sweep: &Sweep, took: &[Took]) -> Self {
        let trials = plan(sweep);
        let all = [smoke::planned(sweep), trials.clone()].concat();
        Self {
            trials,
            least: least_duration(sweep),
            about: estimate::left(&all, took, least_trial(sweep), sweep.lanes.count),
        }
    }
}

fn as_json(
    sweep: &Sweep,
    forecast: &Forecast,
    launches: Option<&Launches>,
    problems: &[String],
) -> serde_json::Value {
    serde_json::json!({
        "sweep": sweep.name,
        "blocks": sweep.blocks,
        "smoke_first": sweep.smoke_first,
        "side_by_side": sweep.lanes.count,
        "cpus": sweep.lanes.cpus,
        "trials": forecast.trials,
        "least_duration_s": forecast.least.as_secs_f64(),
        "expected_duration_s": forecast.about.map(|span| span.as_secs_f64()),
        "launches": launches.map(Launches::as_json),
        "problems": problems,
    })
}

fn show(sweep: &Sweep, forecast: &Forecast, launches: Option<&Launches>) {
    let Forecast { trials, least, about } = forecast;
    println!("{}: {} trials in {} blocks", sweep.name, trials.len(), sweep.blocks);
    if sweep.smoke_first {
        println!("  first, each variant is launched once, to see that it works");
    }
    show_lanes(&sweep.lanes);
    for block in 1..=sweep.blocks.get() {
        let order: Vec<&str> =
            trials.iter().filter(|t| t.block == block).map(|t| t.variant.as_str()).collect();
        println!("  block {block}: {}", order.join(", "));
    }
    let phases: Vec<String> = sweep.phases.iter().map(|phase| phase.name.to_string()).collect();
    println!("  phases of each trial: {}", phases.join(", "));
    if let Some(workload) = sweep.workload.shape.describe() {
        println!("  workload: {workload}");
    }
    for class in &sweep.classes {
        let share = class.share.map_or_else(
            || format!("where it says {:?}", class.value),
            |share| format!("{} % of the requests", (share * 1e4).round() / 1e2),
        );
        println!("  class {}: {share}, within {}", class.name, class.slo.describe());
    }
    for phase in &sweep.phases {
        let Pattern::Search(search) = &phase.pattern else { continue };
        let each = humantime::format_duration(phase.min_duration);
        println!(
            "  {}: {}; {} runs or so of at least {each}, {} at most",
            phase.name,
            search.describe(),
            search.usual_runs(),
            search.max_runs
        );
    }
    // How many runs a search takes is a guess.
    let is_search = |phase: &Phase| matches!(phase.pattern, Pattern::Search(_));
    let how_sure = if sweep.phases.iter().any(is_search) { "about" } else { "at least" };
    let least = humantime::format_duration(*least);
    println!("  {how_sure} {least} by the phases' durations alone");
    match about {
        Some(about) => {
            let minutes = Duration::from_secs(about.as_secs().div_ceil(60) * 60);
            println!(
                "  about {} with launches, as far as is known",
                humantime::format_duration(minutes)
            );
        }
        None => println!(
            "  `sweepd check --launch` tells how long launches take, and whether they work"
        ),
    }
    if let Some(launches) = launches {
        println!("{}", launches.table());
    }
}

/// What runs at once, and where.
fn show_lanes(lanes: &Lanes) {
    if lanes.count.get() > 1 {
        println!("  up to {} trials of a block at once, each on GPUs of its own", lanes.count);
    }
    for (lane, cpus) in (1..).zip(&lanes.cpus) {
        match lanes.count.get() {
            1 => println!("  CPUs: {cpus}"),
            _ => println!("  CPUs of lane {lane}: {cpus}"),
        }
    }
}

/// What the machine's GPUs would refuse at night.
fn gpu_problems(sweep: &Sweep) -> anyhow::Result<Vec<String>> {
    let visible = input::environment().remove("CUDA_VISIBLE_DEVICES");
    let machine = input::machine()?;
    block_on(async { Ok(machine.preflight(sweep, visible.as_deref()).await) })
}
