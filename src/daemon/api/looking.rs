//! What anybody who can connect may see. Nothing here asks the keeper for more than a look.

use super::answer::{ending, json, reading};
use super::{Api, OPENAPI};
use crate::daemon::service::asks::{Ask, Refused};
use crate::daemon::service::changes::{is_a_name, trial_view};
use crate::daemon::service::paths::Paths;
use crate::daemon::service::recover::{self, Mode, trial_id};
use crate::daemon::service::view::{RunDetail, RunView};
use crate::ids::{RunId, TrialId};
use crate::store::dirs::RunDir;
use crate::store::index::{Index, IndexedRun};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// Ended runs that are listed at most.
const MOST_RUNS: u32 = 1000;

pub(super) async fn status(State(api): State<Api>) -> Response {
    let view = api.view.borrow().clone();
    json(&view.status)
}

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    all: bool,
}

/// The queue in its order; with `all`, ended runs after it, the newest first.
pub(super) async fn runs(
    State(api): State<Api>,
    Query(which): Query<Which>,
) -> Result<Response, Refused> {
    let queue = api.view.borrow().runs.clone();
    if !which.all {
        return Ok(json(&*queue));
    }
    let paths = api.paths.clone();
    let ended = reading(move || ended_runs(&paths)).await?;
    let ended = ended.into_iter().filter(|run| queue.iter().all(|open| open.run != run.run));
    Ok(json(&queue.iter().cloned().chain(ended).collect::<Vec<_>>()))
}

fn ended_runs(paths: &Paths) -> Result<Vec<RunView>, Refused> {
    let index = Index::look(&paths.index()).map_err(|e| Refused::new(500, e.to_string()))?;
    let runs = index.runs(None, MOST_RUNS).map_err(|error| Refused::store(&error))?;
    Ok(runs.into_iter().filter(|run| run.state != "open").map(|run| view(paths, run)).collect())
}

fn view(paths: &Paths, run: IndexedRun) -> RunView {
    RunView {
        path: paths.run(&run.id.0).display().to_string(),
        run: run.id,
        sweep: run.sweep,
        state: run.state,
        reason: None,
        schedule: crate::store::control::Schedule { priority: run.priority, ..Default::default() },
        submitted: run.submitted,
        ended: run.ended,
        trials_planned: run.planned,
        trials_ended: run.trials_ended,
        trials_completed: run.trials_completed,
    }
}

pub(super) async fn run(
    State(api): State<Api>,
    Path(run): Path<RunId>,
) -> Result<Response, Refused> {
    detail(&api, run).await.map(|detail| json(&detail))
}

/// From the keeper while the run is in the queue, from its folder afterwards.
pub(super) async fn detail(api: &Api, run: RunId) -> Result<RunDetail, Refused> {
    let (answer, told) = oneshot::channel();
    api.asks.send(Ask::Detail { run: run.clone(), answer }).await.map_err(|_| ending())?;
    if let Some(detail) = told.await.map_err(|_| ending())? {
        return Ok(detail);
    }
    let paths = api.paths.clone();
    reading(move || ended_detail(&paths, run)).await
}

fn ended_detail(paths: &Paths, run: RunId) -> Result<RunDetail, Refused> {
    let dir = folder(paths, &run)?;
    let loaded = recover::load(&dir, Mode::Look).map_err(|error| Refused::store(&error))?;
    let loaded = loaded.ok_or_else(|| Refused::no_run(&run))?;
    let trials = loaded.entry.slots.iter().map(|slot| trial_view(&dir, slot)).collect();
    let mut run = view(paths, loaded.indexed(&run));
    run.schedule = loaded.entry.schedule;
    Ok(RunDetail { run, trials })
}

/// The folder of a run that is there.
pub(super) fn folder(paths: &Paths, run: &RunId) -> Result<RunDir, Refused> {
    let path = paths.run(&run.0);
    if is_a_name(run) && path.join("plan.json").exists() {
        Ok(RunDir::open(&path))
    } else {
        Err(Refused::no_run(run))
    }
}

/// The trial's id, if the run has begun such a one.
pub(super) fn begun_trial(dir: &RunDir, run: &RunId, text: &str) -> Result<TrialId, Refused> {
    let trial = trial_id(text).filter(|trial| dir.trial(trial).is_dir());
    trial.ok_or_else(|| Refused::no_trial(run, text).help("or it has not begun yet"))
}

async fn file(
    api: &Api,
    run: RunId,
    name: &'static str,
    kind: &'static str,
) -> Result<Response, Refused> {
    let paths = api.paths.clone();
    let text = reading(move || {
        let path: PathBuf = folder(&paths, &run)?.file(name);
        std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Refused::new(404, format!("`{run}` has no {name} yet"))
                .help("it is made when its first block has ended"),
            _ => Refused::new(500, format!("cannot read {}: {error}", path.display())),
        })
    });
    Ok(([("content-type", kind)], text.await?).into_response())
}

pub(super) async fn report(
    State(api): State<Api>,
    Path(run): Path<RunId>,
) -> Result<Response, Refused> {
    file(&api, run, "report.md", "text/markdown; charset=utf-8").await
}

pub(super) async fn summary(
    State(api): State<Api>,
    Path(run): Path<RunId>,
) -> Result<Response, Refused> {
    file(&api, run, "summary.json", "application/json").await
}

/// A trial's outcome and those of its attempts, as they were written.
pub(super) async fn trial(
    State(api): State<Api>,
    Path((run, trial)): Path<(RunId, String)>,
) -> Result<Response, Refused> {
    let paths = api.paths.clone();
    let facts = reading(move || {
        let dir = folder(&paths, &run)?;
        let id = begun_trial(&dir, &run, &trial)?;
        let store = |error| Refused::store(&error);
        let mut attempts = Vec::new();
        for number in 1..=dir.last_attempt(&id).map_err(store)? {
            attempts.extend(dir.attempt(&id, number).read_outcome().map_err(store)?);
        }
        let outcome = dir.read_outcome(&id).map_err(store)?;
        Ok(serde_json::json!({ "trial": id, "outcome": outcome, "attempts": attempts }))
    });
    Ok(json(&facts.await?))
}

pub(super) async fn openapi() -> Response {
    ([("content-type", "application/json")], OPENAPI).into_response()
}

pub(super) async fn nothing(uri: axum::http::Uri) -> Refused {
    Refused::new(404, format!("there is nothing at {}", uri.path()))
        .help("/v1/openapi.json describes what there is")
}
