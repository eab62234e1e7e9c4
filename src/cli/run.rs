//! `sweepd run SWEEP`: the whole line in the foreground.
#![expect(clippy::print_stdout, reason = "the result of a run is what it prints")]

use super::{input, plain, resume, room, signals, terminal};
use crate::clock;
use crate::daemon::line::{self, RunResult};
use crate::daemon::order::Order;
use crate::daemon::progress::{Said, Watcher};
use crate::daemon::reports;
use crate::ids::{RunId, folder_stamp};
use crate::report;
use crate::store::dirs::RunDir;
use crate::store::lock::{self, Asked, RunLock};
use anyhow::{Context, bail};
use clap::Args;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::mpsc::{self, UnboundedReceiver};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The sweep file. With --resume it may be left out; given, it must be the one that was begun.
    #[arg(required_unless_present = "resume")]
    sweep: Option<PathBuf>,
    /// Finish this run (its folder or its id): what is missing is done, what was interrupted is
    /// repeated.
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// Where runs are kept. Default: $XDG_STATE_HOME/sweepd/runs.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

pub(super) fn run(arguments: &RunArguments, folders: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let root = arguments.runs.clone().unwrap_or_else(input::runs_folder);
    let root = std::path::absolute(&root).context("cannot find the folder for runs")?;
    let begun = match (&arguments.resume, &arguments.sweep) {
        (Some(run), sweep) => match resume::take_up(run, sweep.as_deref(), &root)? {
            resume::Found::Missing(begun) => *begun,
            resume::Found::Finished(dir) => {
                let result =
                    RunResult::of(reports::rewrite(&dir).context("cannot make the report")?);
                println!("run {} is finished: nothing is missing", result.summary.run);
                return Ok(told(&result, &dir));
            }
        },
        (None, Some(sweep)) => begin(sweep, folders, &root)?,
        (None, None) => bail!("no sweep was named"),
    };
    let stop = signals::stop_requests()?;
    let Begun { order, dir, id, lock } = begun;
    println!("run {id} in {}", dir.path.display());
    let (sender, progress) = mpsc::unbounded_channel();
    let result = runtime()?.block_on(async {
        let shown = tokio::spawn(show(progress));
        let watcher = Watcher::new(sender);
        let result = line::run(order, dir.clone(), id.clone(), lock, &watcher, stop.clone()).await;
        drop(watcher);
        shown.await.ok();
        result
    });
    let result = result.with_context(|| {
        let what = format!("cannot go on; what was measured is in {}", dir.path.display());
        format!("{what}; when the cause is gone: sweepd run --resume {id}")
    })?;
    Ok(told(&result, &dir))
}

/// For the trial line, which waits far more than it works: of one thread, so that nothing that comes in
/// has to wake a second one.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A run that is about to be worked on.
pub(super) struct Begun {
    pub(super) order: Order,
    pub(super) dir: RunDir,
    pub(super) id: RunId,
    pub(super) lock: RunLock,
}

fn begin(sweep: &Path, folders: Vec<PathBuf>, root: &Path) -> anyhow::Result<Begun> {
    let input = input::read_sweep(sweep, folders)?;
    room::check(&input.sweep, root)?;
    let stamp = folder_stamp(&clock::wall_time());
    let (dir, id) = RunDir::create(root, &input.sweep.name, &stamp).context("cannot begin")?;
    let Asked::Taken(lock) = lock::take(&dir.file("lock")).context("cannot begin")? else {
        bail!("{} is already being worked on", dir.path.display());
    };
    Ok(Begun { order: order(input)?, dir, id, lock })
}

pub(super) fn order(input: input::Input) -> anyhow::Result<Order> {
    Ok(Order {
        sweep: input.sweep,
        text: input.text,
        origin: input.origin,
        sweepd: std::env::current_exe().context("cannot find sweepd's own executable")?,
        inherited: input::environment(),
        machine: input::machine()?,
    })
}

/// The result, for whoever started it.
fn told(result: &RunResult, dir: &RunDir) -> ExitCode {
    println!("\n{}", report::headline_table(&result.summary));
    println!("report: {}", dir.file("report.md").display());
    if result.all_completed { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// A screen for a terminal, lines for everything else.
pub(super) async fn show(mut progress: UnboundedReceiver<Said>) {
    let mut screen: Box<dyn FnMut(Said) + Send> = if stderr().is_terminal() {
        let mut screen = terminal::Screen::new();
        Box::new(move |said| screen.show(said))
    } else {
        let mut lines = plain::Lines::new();
        Box::new(move |said| lines.show(said))
    };
    while let Some(next) = progress.recv().await {
        screen(next);
    }
}
