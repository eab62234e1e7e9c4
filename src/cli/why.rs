//! `sweepd why RUN [TRIAL]`: why a trial ended as it did, was tried again, limited or skipped.
#![expect(clippy::print_stdout, reason = "the result is what it prints")]

use super::input;
use crate::daemon::why::{self, Explained};
use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct WhyArguments {
    /// A run's folder, or its id.
    run: PathBuf,
    /// One trial, such as `02-fcfs`. Default: all of the run.
    trial: Option<String>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &WhyArguments) -> anyhow::Result<ExitCode> {
    let dir = input::find_run(&arguments.run, &input::runs_folder())?;
    let mut all = why::explain(&dir).context("cannot read the run")?;
    if let Some(wanted) = &arguments.trial {
        let names: Vec<&str> = all.iter().map(|explained| explained.trial.as_str()).collect();
        if !names.contains(&wanted.as_str()) {
            let names = names.join(", ");
            bail!(input::Refused::Other(format!(
                "the run has no trial {wanted:?}; it has {names}"
            )));
        }
        all.retain(|explained| explained.trial == *wanted);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&all).context("cannot print JSON")?);
    } else {
        let words: Vec<String> = all.iter().map(Explained::words).collect();
        println!("{}", words.join("\n\n"));
    }
    Ok(ExitCode::SUCCESS)
}
