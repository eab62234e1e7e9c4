//! `sweepd queue`, `status` and `watch`: what is to be done and what is being done.
#![expect(clippy::print_stdout, reason = "the facts are what it prints")]

use super::client::{Client, Target, block_on};
use crate::daemon::service::view::{CurrentView, RunDetail, RunView, StatusView};
use clap::Args;
use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;

const WATCH_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct QueueArguments {
    /// Also the runs that have ended, the newest first.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// A run, with its trials, instead of the daemon.
    run: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    #[command(flatten)]
    target: Target,
}

pub(super) fn queue(arguments: &QueueArguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.target)?;
    let path = if arguments.all { "/v1/runs?all=true" } else { "/v1/runs" };
    let runs: Vec<RunView> = block_on(client.get(path))?;
    if arguments.target.json {
        println!("{}", serde_json::to_string(&runs)?);
    } else if runs.is_empty() {
        println!("the queue is empty");
    } else {
        println!("{}", table(&runs));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn status(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.target)?;
    if let Some(run) = &arguments.run {
        let detail: RunDetail = block_on(client.get(&format!("/v1/runs/{run}")))?;
        match arguments.target.json {
            true => println!("{}", serde_json::to_string(&detail)?),
            false => println!("{}", detail_text(&detail)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status: StatusView = block_on(client.get("/v1/status"))?;
    match arguments.target.json {
        true => println!("{}", serde_json::to_string(&status)?),
        false => println!("{}", status_text(&status)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The status and the queue, again and again: on a terminal in place, elsewhere as lines of JSON
/// or text when something has changed.
pub(super) fn watch(arguments: &WatchArguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.target)?;
    let in_place = stdout().is_terminal() && !arguments.target.json;
    block_on(async {
        let mut last = String::new();
        loop {
            let status: StatusView = client.get("/v1/status").await?;
            let text = if arguments.target.json {
                serde_json::to_string(&status)?
            } else {
                let runs: Vec<RunView> = client.get("/v1/runs").await?;
                let queue = if runs.is_empty() { String::new() } else { table(&runs) };
                format!("{}\n\n{queue}", status_text(&status))
            };
            if in_place {
                // Home, and clear what is below.
                print!("\x1b[H\x1b[2J{text}");
                stdout().flush()?;
            } else if text != last {
                println!("{text}");
            }
            last = text;
            sleep(WATCH_AGAIN).await;
        }
    })
}

fn status_text(status: &StatusView) -> String {
    let mut lines = vec![format!(
        "sweepd {} (pid {}): {}, {} runs open, {} trials waiting",
        status.sweepd, status.pid, status.state, status.runs_open, status.trials_waiting
    )];
    lines.extend(status.problem.as_ref().map(|problem| format!("problem: {problem}")));
    if status.paused {
        lines.push("the queue is paused".to_owned());
    }
    if status.draining {
        lines.push("the queue is draining: no new runs are taken".to_owned());
    }
    // A daemon of before trials ran side by side tells of one.
    let alone = status.current.iter().filter(|_| status.under_way.is_empty());
    let under_way: Vec<&CurrentView> = alone.chain(&status.under_way).collect();
    lines.extend(under_way.iter().map(|current| current_text(current)));
    if let Some(seconds) = under_way.first().and_then(|current| current.run_seconds_left) {
        let left = humantime::format_duration(Duration::from_secs_f64(seconds.round()));
        lines.push(format!("about {left} left for the run"));
    }
    lines.join("\n")
}

fn current_text(current: &CurrentView) -> String {
    let CurrentView { run, trial, attempt, number, of, state, .. } = current;
    let mut text = format!("{run}: trial {number} of {of}, {trial}, attempt {attempt}: {state}");
    if let Some(requests) = &current.requests {
        let rate = requests.chunks_per_s.map_or_else(String::new, |r| format!(", {r:.0} chunks/s"));
        text.push_str(&format!(
            ", {} ok, {} failed, {} in flight{rate}",
            requests.ok, requests.failed, requests.in_flight
        ));
    }
    text
}

fn detail_text(detail: &RunDetail) -> String {
    let run = &detail.run;
    let mut lines = vec![
        format!("{}: {}", run.run, run.state),
        format!(
            "{} of {} trials ended, {} completed",
            run.trials_ended, run.trials_planned, run.trials_completed
        ),
        format!("in {}", run.path),
    ];
    lines.extend(run.reason.as_ref().map(|reason| format!("held: {reason}")));
    lines.extend(run.schedule.not_before.as_ref().map(|time| format!("not before {time}")));
    lines.extend(run.schedule.finish_by.as_ref().map(|time| format!("finish by {time}")));
    for trial in &detail.trials {
        let text = trial.text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        lines.push(format!("  {} {}{text}", trial.trial, trial.state));
    }
    lines.join("\n")
}

fn table(runs: &[RunView]) -> String {
    let rows = runs.iter().map(|run| {
        let trials = format!("{}/{}", run.trials_ended, run.trials_planned);
        let when = run.ended.as_ref().or(run.submitted.as_ref());
        [
            run.run.to_string(),
            run.state.clone(),
            run.schedule.priority.to_string(),
            trials,
            when.cloned().unwrap_or_default(),
        ]
    });
    let head = ["run", "state", "priority", "trials", "since"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
