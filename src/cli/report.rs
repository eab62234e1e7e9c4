//! `sweepd report RUN`: a run's reports, made again from its files.
#![expect(clippy::print_stdout, reason = "the result is what it prints")]

use super::input;
use crate::daemon::reports;
use crate::report;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// A run's folder, or its id.
    run: PathBuf,
    /// Print the whole report instead of its headline table.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let dir = input::find_run(&arguments.run, &input::runs_folder())?;
    let summary = reports::rewrite(&dir).context("cannot make the report")?;
    if arguments.print {
        println!("{}", report::markdown(&summary));
    } else {
        println!("{}", report::headline_table(&summary));
        println!("report: {}", dir.file("report.md").display());
    }
    Ok(ExitCode::SUCCESS)
}
