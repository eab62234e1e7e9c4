//! `sweepd pause`, `resume`, `cancel`, `retry`, `move` and `drain`: decisions about the queue.
#![expect(clippy::print_stdout, reason = "what was done is what it prints")]

use super::client::{Client, Target, block_on};
use super::when;
use crate::daemon::service::view::{Done, Move, StatusView, Which};
use crate::ids::RunId;
use clap::Args;
use reqwest::Method;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;

#[derive(Debug, Args)]
pub(super) struct WholeOrRun {
    /// A run; without it, the whole queue.
    run: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct RunOrTrial {
    /// The run's id.
    run: String,
    /// One trial (`01-NAME`); without it, all that it concerns.
    trial: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct MoveArguments {
    /// The run's id.
    run: String,
    /// The highest first.
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Before this run, with its priority.
    #[arg(long, value_name = "RUN")]
    before: Option<String>,
    /// Start no trial before: 23:00, 2h, 2026-11-26T01:00:00Z; "none" takes it away.
    #[arg(long, value_name = "TIME", value_parser = time_or_none)]
    not_before: Option<String>,
    /// Start no trial that would not end by then; "none" takes it away.
    #[arg(long, value_name = "TIME", value_parser = time_or_none)]
    finish_by: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    /// Wait until the queue is empty.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    target: Target,
}

fn time_or_none(text: &str) -> Result<String, String> {
    if text == "none" { Ok(String::new()) } else { when::parse(text) }
}

fn tell(
    target: &Target,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<ExitCode> {
    let client = Client::new(target)?;
    let done: Done = block_on(client.send(method, path, body))?;
    if target.json {
        println!("{}", serde_json::to_string(&done)?);
    } else {
        println!("{}", done.done);
    }
    Ok(ExitCode::SUCCESS)
}

/// `pause` or `resume`.
pub(super) fn whole_or_run(arguments: &WholeOrRun, word: &str) -> anyhow::Result<ExitCode> {
    let path = match &arguments.run {
        Some(run) => format!("/v1/runs/{run}/{word}"),
        None => format!("/v1/queue/{word}"),
    };
    tell(&arguments.target, Method::POST, &path, &Which::default())
}

/// `cancel` or `retry`.
pub(super) fn run_or_trial(arguments: &RunOrTrial, word: &str) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/runs/{}/{word}", arguments.run);
    let which = Which { trial: arguments.trial.clone() };
    tell(&arguments.target, Method::POST, &path, &which)
}

pub(super) fn move_run(arguments: &MoveArguments) -> anyhow::Result<ExitCode> {
    let to = Move {
        priority: arguments.priority,
        before: arguments.before.clone().map(RunId),
        not_before: arguments.not_before.clone(),
        finish_by: arguments.finish_by.clone(),
    };
    tell(&arguments.target, Method::PATCH, &format!("/v1/runs/{}", arguments.run), &to)
}

pub(super) fn drain(arguments: &DrainArguments) -> anyhow::Result<ExitCode> {
    tell(&arguments.target, Method::POST, "/v1/queue/drain", &Which::default())?;
    if arguments.wait {
        const AGAIN: Duration = Duration::from_secs(2);
        let client = Client::new(&arguments.target)?;
        block_on(async {
            while client.get::<StatusView>("/v1/status").await?.runs_open > 0 {
                sleep(AGAIN).await;
            }
            Ok(())
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
