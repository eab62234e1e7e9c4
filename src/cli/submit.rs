//! `sweepd submit SWEEP`: checked here, frozen and queued by the daemon.
#![expect(clippy::print_stdout, reason = "the run's id is what it prints")]

use super::client::{Client, Target, block_on};
use super::wait::{self, outcome_of};
use super::{input, when};
use crate::daemon::service::view::{Submission, Submitted};
use clap::Args;
use reqwest::Method;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct SubmitArguments {
    /// The sweep file.
    sweep: PathBuf,
    /// Wait for the run's end; the exit code tells what it came to.
    #[arg(long)]
    wait: bool,
    /// The highest first.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Start no trial before: 23:00, 2h, 2026-11-26T01:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    not_before: Option<String>,
    /// Start no trial that would not end by then; what is left out, the report says.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    finish_by: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &SubmitArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let input = input::read_sweep(&arguments.sweep, folders)?;
    let text = |path: &PathBuf| path.display().to_string();
    let submission = Submission {
        sweep: input.text,
        file: text(&input.origin.file),
        engine_folders: input.origin.engine_folders.iter().map(text).collect(),
        priority: arguments.priority,
        not_before: arguments.not_before.clone(),
        finish_by: arguments.finish_by.clone(),
    };
    let client = Client::new(&arguments.target)?;
    block_on(async {
        let submitted: Submitted = client.send(Method::POST, "/v1/runs", &submission).await?;
        if arguments.target.json {
            println!("{}", serde_json::to_string(&submitted)?);
        } else {
            let Submitted { run, path, trials } = &submitted;
            println!("run {run} in {path}: {trials} trials are in the queue");
        }
        if !arguments.wait {
            return Ok(ExitCode::SUCCESS);
        }
        let ended = wait::until_ended(&client, &submitted.run).await?;
        outcome_of(&ended, arguments.target.json)
    })
}
