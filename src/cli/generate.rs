//! `sweepd completions SHELL` and `sweepd man`: made from the command line's own definition.

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Write a page for each command into this folder, instead of the main page to stdout.
    folder: Option<PathBuf>,
}

pub(super) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "sweepd", &mut text);
    stdout().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(arguments: &ManArguments) -> anyhow::Result<ExitCode> {
    let command = super::Arguments::command();
    match &arguments.folder {
        Some(folder) => clap_mangen::generate_to(command, folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?,
        None => clap_mangen::Man::new(command).render(&mut stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}
