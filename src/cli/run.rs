//! `sweepd run SWEEP`: the whole line in the foreground.
#![expect(clippy::print_stdout, reason = "the result of a run is what it prints")]

use super::{input, plain, signals, terminal};
use crate::clock;
use crate::daemon::line::{self, RunResult};
use crate::daemon::order::Order;
use crate::daemon::progress::{Progress, Watcher};
use crate::report;
use crate::store::dirs::RunDir;
use anyhow::Context;
use clap::Args;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::sync::mpsc::{self, UnboundedReceiver};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The sweep file.
    sweep: PathBuf,
    /// Where runs are kept. Default: $XDG_STATE_HOME/sweepd/runs.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

pub(super) fn run(arguments: &RunArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let input = input::read_sweep(&arguments.sweep, folders)?;
    let stop = signals::stop_requests()?;
    let root = arguments.runs.clone().unwrap_or_else(input::runs_folder);
    let root = std::path::absolute(&root).context("cannot find the folder for runs")?;
    let stamp = folder_stamp(&clock::wall_time());
    let (dir, run) = RunDir::create(&root, &input.sweep.name, &stamp).context("cannot begin")?;
    println!("run {run} in {}", dir.path.display());
    let sweepd = std::env::current_exe().context("cannot find sweepd's own executable")?;
    let inherited = input::environment();
    let order = Order {
        sweep: &input.sweep,
        text: &input.text,
        cwd: &input.folder,
        sweepd: &sweepd,
        inherited: &inherited,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (sender, progress) = mpsc::unbounded_channel();
    let result = runtime.block_on(async {
        let shown = tokio::spawn(show(progress));
        let result = line::run(&order, &dir, &run, &Watcher(sender), stop.clone()).await;
        shown.await.ok();
        result
    });
    let RunResult { summary, all_completed } = result
        .with_context(|| format!("cannot go on; what was measured is in {}", dir.path.display()))?;
    println!("\n{}", report::headline_table(&summary));
    println!("report: {}", dir.file("report.md").display());
    Ok(if all_completed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A screen for a terminal, lines for everything else.
async fn show(mut progress: UnboundedReceiver<Progress>) {
    let mut screen: Box<dyn FnMut(Progress) + Send> = if stderr().is_terminal() {
        let mut screen = terminal::Screen::new();
        Box::new(move |progress| screen.show(progress))
    } else {
        let mut lines = plain::Lines::new();
        Box::new(move |progress| lines.show(progress))
    };
    while let Some(next) = progress.recv().await {
        screen(next);
    }
}

/// `2026-11-25T19:00:00.000Z` as part of a folder's name: `20261125-190000`.
fn folder_stamp(wall_time: &str) -> String {
    wall_time
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == 'T')
        .map(|c| if c == 'T' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_holds_the_time_in_utc() {
        assert_eq!(folder_stamp("2026-11-25T19:00:01.234Z"), "20261125-190001");
    }
}
