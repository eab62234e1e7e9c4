//! What only somebody with the right may ask for. Bodies are read here; the keeper decides.

use super::Api;
use super::answer::{ending, json, reading};
use super::peer::Changer;
use crate::daemon::order::Order;
use crate::daemon::reports::Origin;
use crate::daemon::service::asks::{Ask, Refused, Request, What};
use crate::daemon::service::changes::time_or_none;
use crate::daemon::service::job::Outfit;
use crate::daemon::service::recover::trial_id;
use crate::daemon::service::view::{Move, Submission, Which};
use crate::form::Problems;
use crate::ids::{RunId, TrialId};
use crate::store::control::{By, Schedule};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::oneshot;

type Answered = Result<Response, Refused>;

/// A body as JSON; none at all is an empty object.
fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|error| Refused::new(422, format!("the body cannot be used: {error}")))
}

async fn ask(api: &Api, what: What, by: By) -> Answered {
    let (answer, told) = oneshot::channel();
    let request = Ask::Change(Request { what, by, answer });
    api.asks.send(request).await.map_err(|_| ending())?;
    told.await.map_err(|_| ending())?.map(|done| json(&done))
}

fn trial_of(run: &RunId, bytes: &[u8]) -> Result<Option<TrialId>, Refused> {
    let which: Which = body(bytes)?;
    let id = |text: String| trial_id(&text).ok_or_else(|| Refused::no_trial(run, &text));
    which.trial.map(id).transpose()
}

/// Checks the sweep as the daemon's machine sees it, freezes it and puts it in the queue.
pub(super) async fn submit(State(api): State<Api>, Changer(by): Changer, bytes: Bytes) -> Answered {
    let submission: Submission = body(&bytes)?;
    let schedule = Schedule {
        priority: submission.priority,
        rank: 0.0,
        not_before: time_or_none("not_before", submission.not_before.as_deref().unwrap_or(""))?,
        finish_by: time_or_none("finish_by", submission.finish_by.as_deref().unwrap_or(""))?,
    };
    let outfit = api.outfit.clone();
    let order = reading(move || order(submission, &outfit)).await?;
    let (answer, told) = oneshot::channel();
    let request = Ask::Submit { order: Box::new(order), schedule, by, answer };
    api.asks.send(request).await.map_err(|_| ending())?;
    told.await.map_err(|_| ending())?.map(|submitted| json(&submitted))
}

fn order(submission: Submission, outfit: &Arc<Outfit>) -> Result<Order, Refused> {
    let file = PathBuf::from(&submission.file);
    let engine_folders: Vec<PathBuf> =
        submission.engine_folders.iter().map(PathBuf::from).collect();
    if let Some(relative) = engine_folders.iter().chain([&file]).find(|path| !path.is_absolute()) {
        return Err(Refused::new(422, format!("`{}` is no absolute path", relative.display()))
            .help("the daemon does not know where you are"));
    }
    let wrong = |problems: Problems| {
        Refused::new(422, problems.to_string()).help("`sweepd check` says the same, before")
    };
    outfit.order(submission.sweep, Origin { file, engine_folders }).map_err(wrong)
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Changer(by): Changer,
    Path(run): Path<RunId>,
    bytes: Bytes,
) -> Answered {
    let trial = trial_of(&run, &bytes)?;
    ask(&api, What::Cancel { run, trial }, by).await
}

pub(super) async fn retry(
    State(api): State<Api>,
    Changer(by): Changer,
    Path(run): Path<RunId>,
    bytes: Bytes,
) -> Answered {
    let trial = trial_of(&run, &bytes)?;
    ask(&api, What::Retry { run, trial }, by).await
}

pub(super) async fn pause(
    State(api): State<Api>,
    Changer(by): Changer,
    Path(run): Path<RunId>,
) -> Answered {
    ask(&api, What::Pause { run: Some(run) }, by).await
}

pub(super) async fn resume(
    State(api): State<Api>,
    Changer(by): Changer,
    Path(run): Path<RunId>,
) -> Answered {
    ask(&api, What::Continue { run: Some(run) }, by).await
}

pub(super) async fn move_run(
    State(api): State<Api>,
    Changer(by): Changer,
    Path(run): Path<RunId>,
    bytes: Bytes,
) -> Answered {
    let to: Move = body(&bytes)?;
    ask(&api, What::Move { run, to }, by).await
}

pub(super) async fn pause_queue(State(api): State<Api>, Changer(by): Changer) -> Answered {
    ask(&api, What::Pause { run: None }, by).await
}

pub(super) async fn resume_queue(State(api): State<Api>, Changer(by): Changer) -> Answered {
    ask(&api, What::Continue { run: None }, by).await
}

pub(super) async fn drain(State(api): State<Api>, Changer(by): Changer) -> Answered {
    ask(&api, What::Drain, by).await
}

/// For tests of the watchdog alone: the control loop hangs from here on.
pub(super) async fn stick(State(api): State<Api>, Changer(_): Changer) -> Answered {
    api.asks.send(Ask::Stick).await.map_err(|_| ending())?;
    Ok(json(&serde_json::json!({ "done": "sweepd is stuck" })))
}
