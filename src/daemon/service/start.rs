//! The daemon's start: its lock, what a dead one left undone, the queue from the folders.

use super::config::Config;
use super::events::Events;
use super::fill::{self, FillError};
use super::hooks;
use super::job::Outfit;
use super::keeper::{Keeper, View};
use super::paths::Paths;
use super::view::{API, Counts, StatusView};
use crate::clock;
use crate::daemon::progress::Watcher;
use crate::daemon::queue::Queue;
use crate::store::control;
use crate::store::files::StoreError;
use crate::store::lock::{self, Asked, Holder};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Completes "cannot start: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{} is kept by another daemon{}", .0.display(), by(.1.as_ref()))]
    Held(PathBuf, Option<Holder>),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Fill(#[from] FillError),
}

fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(": process {}", holder.pid))
}

/// A keeper that knows all that was decided before, and where its view is shown.
pub(crate) fn recover(
    paths: Paths,
    config_file: PathBuf,
    config: watch::Sender<Arc<Config>>,
    outfit: Outfit,
    watcher: Watcher,
    events: Arc<Events>,
) -> Result<(Keeper, watch::Receiver<Arc<View>>), StartError> {
    for folder in [paths.runs(), paths.runtime.clone()] {
        std::fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
    }
    let lock = match lock::take(&paths.lock())? {
        Asked::Taken(lock) => lock,
        Asked::Held(holder) => return Err(StartError::Held(paths.state, holder)),
    };
    hooks::take_back(&paths.outbox());
    let mut queue = Queue::default();
    for line in control::read(&paths.control())? {
        queue.apply(&line.change);
    }
    let (index, recovered) = fill::index(&paths)?;
    for error in &recovered.unreadable {
        tracing::error!(%error, "a run cannot be read: it is left alone");
        events.say("run_unreadable", None, None, error.to_string());
    }
    for (run, loaded) in recovered.open {
        if loaded.entry.interrupted {
            events.say(
                "run_interrupted",
                Some(&run),
                None,
                "a trial was under way; it is repeated",
            );
        }
        queue.runs.insert(run, loaded.entry);
    }
    let since = clock::wall_time();
    let (view, shown) = watch::channel(Arc::new(nothing_yet(&since)));
    let keeper = Keeper {
        paths,
        config_file,
        config,
        outfit: Arc::new(outfit),
        queue,
        index,
        open: HashMap::new(),
        current: Vec::new(),
        closing: None,
        works: JoinSet::new(),
        watcher,
        events,
        view,
        counts: Counts::default(),
        stopping: false,
        no_space: None,
        since,
        _lock: lock,
    };
    Ok((keeper, shown))
}

fn nothing_yet(since: &str) -> View {
    let status = StatusView {
        sweepd: env!("CARGO_PKG_VERSION").to_owned(),
        api: API,
        pid: std::process::id(),
        since: since.to_owned(),
        state: "starting".to_owned(),
        problem: None,
        paused: false,
        draining: false,
        current: None,
        under_way: Vec::new(),
        runs_open: 0,
        trials_waiting: 0,
        last_event: 0,
        free_bytes: None,
        counts: Counts::default(),
    };
    View { status, runs: Arc::default() }
}
