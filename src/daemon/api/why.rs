//! Why a run waits or a trial ended as it did, in sentences.

use super::Api;
use super::answer::json;
use super::looking::detail;
use crate::daemon::service::asks::Refused;
use crate::daemon::service::keeper::View;
use crate::daemon::service::view::{RunDetail, TrialView};
use crate::ids::RunId;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct About {
    trial: Option<String>,
}

pub(super) async fn why(
    State(api): State<Api>,
    Path(run): Path<RunId>,
    Query(about): Query<About>,
) -> Result<Response, Refused> {
    let detail = detail(&api, run.clone()).await?;
    let view = api.view.borrow().clone();
    let reasons = match about.trial {
        None => of_run(&detail, &view),
        Some(text) => {
            let trial = detail.trials.iter().find(|trial| trial.trial.to_string() == text);
            of_trial(trial.ok_or_else(|| Refused::no_trial(&run, &text))?, &detail, &view)
        }
    };
    Ok(json(&serde_json::json!({ "run": run, "why": reasons })))
}

fn of_run(detail: &RunDetail, view: &View) -> Vec<String> {
    let run = &detail.run;
    let mut reasons = vec![format!(
        "{}: {} of {} trials ended, {} of them completed",
        run.state, run.trials_ended, run.trials_planned, run.trials_completed
    )];
    if matches!(run.state.as_str(), "waiting" | "paused" | "held") {
        reasons.extend(waits(detail, view));
    }
    let failed = detail
        .trials
        .iter()
        .filter(|trial| !matches!(trial.state.as_str(), "completed" | "waiting" | "running"));
    reasons.extend(failed.map(trial_line));
    reasons
}

fn waits(detail: &RunDetail, view: &View) -> Vec<String> {
    let run = &detail.run;
    let mut reasons = Vec::new();
    reasons
        .extend(view.status.problem.as_ref().map(|problem| format!("nothing starts: {problem}")));
    if view.status.paused {
        reasons.push("the queue is paused: `sweepd resume`".to_owned());
    }
    if run.state == "paused" {
        reasons.push(format!("the run is paused: `sweepd resume {}`", run.run));
    }
    if let Some(held) = &run.reason {
        let again = format!("`sweepd resume {}` tries again", run.run);
        reasons.push(format!("it is held: {held}; {again}"));
    }
    if let Some(time) = &run.schedule.not_before {
        reasons.push(format!("not before {time}"));
    }
    let before: Vec<&str> = view
        .runs
        .iter()
        .take_while(|other| other.run != run.run)
        .filter(|other| matches!(other.state.as_str(), "waiting" | "running"))
        .map(|other| other.run.0.as_str())
        .collect();
    if !before.is_empty() {
        reasons.push(format!("before it: {}", before.join(", ")));
    }
    reasons
}

fn of_trial(trial: &TrialView, detail: &RunDetail, view: &View) -> Vec<String> {
    let mut reasons = vec![trial_line(trial)];
    if trial.state == "waiting" {
        let position = detail.trials.iter().position(|other| other.trial == trial.trial);
        let earlier = detail.trials.iter().take(position.unwrap_or(0));
        let waiting = earlier.filter(|t| matches!(t.state.as_str(), "waiting" | "running")).count();
        reasons.push(format!("{waiting} trials of its run come before it"));
        reasons.extend(waits(detail, view));
    }
    reasons
}

fn trial_line(trial: &TrialView) -> String {
    let text = trial.text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
    format!("{} {}{text}", trial.trial, trial.state)
}
