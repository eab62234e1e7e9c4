//! `sweepd check --launch`: each variant launched once, in a folder that goes away if all work.

use super::input::{self, Input};
use super::run::{Begun, order, runtime, show};
use super::signals;
use crate::clock;
use crate::daemon::estimate::Took;
use crate::daemon::line::{self, Launched};
use crate::daemon::progress::Watcher;
use crate::run::outcome::Ending;
use crate::store::dirs::RunDir;
use crate::store::lock::{self, Asked};
use anyhow::{Context, bail};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the launches came to.
pub(super) struct Launches {
    launched: Vec<Launched>,
    /// Logs and files, kept where a launch failed.
    kept: Option<PathBuf>,
    /// Every variant was launched.
    whole: bool,
}

/// Launches every variant of the sweep.
pub(super) fn run(mut input: Input) -> anyhow::Result<Launches> {
    input.sweep.smoke_first = true;
    let variants = input.sweep.variants.len();
    let root = input::own_folder().join("checks");
    let stamp = crate::ids::folder_stamp(&clock::wall_time());
    let (dir, id) = RunDir::create(&root, &input.sweep.name, &stamp).context("cannot begin")?;
    let Asked::Taken(lock) = lock::take(&dir.file("lock")).context("cannot begin")? else {
        bail!("{} is already being worked on", dir.path.display());
    };
    let begun = Begun { order: order(input)?, dir: dir.clone(), id, lock };
    let stop = signals::stop_requests()?;
    let (sender, progress) = mpsc::unbounded_channel();
    let launched = runtime()?.block_on(async {
        let shown = tokio::spawn(show(progress));
        let watcher = Watcher::new(sender);
        let Begun { order, dir, id, lock } = begun;
        let launched = line::launch_only(order, dir, id, lock, &watcher, stop).await;
        drop(watcher);
        shown.await.ok();
        launched
    });
    let launched = launched.context("cannot go on")?;
    let mut launches = Launches { whole: launched.len() == variants, launched, kept: None };
    if launches.all_work() {
        // It is only a check's; what stays behind takes some room and nothing else.
        std::fs::remove_dir_all(&dir.path).ok();
    } else {
        launches.kept = Some(dir.path);
    }
    Ok(launches)
}

impl Launches {
    pub(super) fn all_work(&self) -> bool {
        let works = |launched: &Launched| launched.outcome.ending == Ending::Completed;
        self.whole && self.launched.iter().all(works)
    }

    pub(super) fn took(&self) -> Vec<Took> {
        self.launched.iter().filter_map(|launched| launched.took.clone()).collect()
    }

    pub(super) fn as_json(&self) -> serde_json::Value {
        let one = |launched: &Launched| {
            serde_json::json!({
                "variant": launched.outcome.trial.variant,
                "outcome": launched.outcome.ending,
                "ready_after_s": launched.ready_after.map(|span| span.as_secs_f64()),
                "took_s": launched.took.as_ref().map(|took| took.duration.as_secs_f64()),
            })
        };
        serde_json::Value::Array(self.launched.iter().map(one).collect())
    }

    /// One line a variant, and where the logs of a failure are.
    pub(super) fn table(&self) -> String {
        let mut text = String::from("launches:");
        for launched in &self.launched {
            let seconds = |span: Duration| format!("{:.1} s", span.as_secs_f64());
            let ready = launched
                .ready_after
                .map_or("not ready".to_owned(), |span| format!("ready after {}", seconds(span)));
            let took = launched
                .took
                .as_ref()
                .map_or(String::new(), |took| format!(", {} in all", seconds(took.duration)));
            let variant = &launched.outcome.trial.variant;
            let ended = match &launched.outcome.ending {
                Ending::Completed => "works".to_owned(),
                _ => super::terminal::ended(&launched.outcome),
            };
            // Writing to a string cannot fail.
            write!(text, "\n  {variant}: {ended} ({ready}{took})").ok();
            if let Ending::EngineFailed { failure } = &launched.outcome.ending {
                for line in failure.evidence.iter().take(3) {
                    write!(text, "\n    {:>6}  {}", line.line, line.text).ok();
                }
                if let Some(advice) = &failure.advice {
                    write!(text, "\n    what to do: {advice}").ok();
                }
            }
        }
        if let Some(kept) = &self.kept {
            write!(text, "\n  logs: {}", kept.join("trials").display()).ok();
        }
        text
    }
}
