//! What the daemon tells about itself and its runs: the API's JSON, for its clients too.

use crate::ids::{Name, RunId, TrialId};
use crate::store::control::Schedule;
use serde::{Deserialize, Serialize};

/// The newest version of the API.
pub(crate) const API: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusView {
    pub(crate) sweepd: String,
    pub(crate) api: u32,
    pub(crate) pid: u32,
    /// RFC 3339, UTC.
    pub(crate) since: String,
    /// `working`, `idle`, `paused`, `no_space` or `stopping`.
    pub(crate) state: String,
    /// Why nothing goes on, where that is not obvious.
    pub(crate) problem: Option<String>,
    pub(crate) paused: bool,
    pub(crate) draining: bool,
    /// The trial under way; of several, the one that began first.
    pub(crate) current: Option<CurrentView>,
    /// All of them: more than one where a sweep lets trials run side by side.
    #[serde(default)]
    pub(crate) under_way: Vec<CurrentView>,
    pub(crate) runs_open: usize,
    pub(crate) trials_waiting: usize,
    pub(crate) last_event: u64,
    pub(crate) free_bytes: Option<u64>,
    /// Since the daemon's start.
    pub(crate) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) trials_completed: u64,
    pub(crate) trials_failed: u64,
    pub(crate) trials_interrupted: u64,
    pub(crate) runs_ended: u64,
    pub(crate) requests_ok: u64,
    pub(crate) requests_failed: u64,
}

/// A trial under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CurrentView {
    pub(crate) run: RunId,
    pub(crate) trial: TrialId,
    pub(crate) attempt: u32,
    pub(crate) number: usize,
    pub(crate) of: usize,
    /// In words: `loading`, `phase 4-users`.
    pub(crate) state: String,
    pub(crate) started: String,
    pub(crate) requests: Option<RequestsView>,
    /// Of the whole run, by what its variants' trials took so far.
    pub(crate) run_seconds_left: Option<f64>,
}

/// Counters of the phase under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequestsView {
    pub(crate) elapsed_s: f64,
    pub(crate) in_flight: u32,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) chunks_per_s: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunView {
    pub(crate) run: RunId,
    pub(crate) sweep: Name,
    /// `waiting`, `running`, `paused`, `held`, `ended` or `cancelled`.
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    #[serde(flatten)]
    pub(crate) schedule: Schedule,
    pub(crate) submitted: Option<String>,
    pub(crate) ended: Option<String>,
    pub(crate) trials_planned: u64,
    pub(crate) trials_ended: u64,
    pub(crate) trials_completed: u64,
    pub(crate) path: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialView {
    #[serde(flatten)]
    pub(crate) trial: TrialId,
    /// `waiting`, `running`, or the outcome's `ending`.
    pub(crate) state: String,
    pub(crate) attempts: u32,
    pub(crate) text: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunDetail {
    #[serde(flatten)]
    pub(crate) run: RunView,
    pub(crate) trials: Vec<TrialView>,
}

/// `POST /v1/runs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// The sweep file's text.
    pub(crate) sweep: String,
    /// Where it lies, absolute: its relative paths start there.
    pub(crate) file: String,
    #[serde(default)]
    pub(crate) engine_folders: Vec<String>,
    #[serde(default)]
    pub(crate) priority: i32,
    #[serde(default)]
    pub(crate) not_before: Option<String>,
    #[serde(default)]
    pub(crate) finish_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Submitted {
    pub(crate) run: RunId,
    pub(crate) path: String,
    pub(crate) trials: usize,
}

/// Which trial a request is about; all of the run's when it is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    #[serde(default)]
    pub(crate) trial: Option<String>,
}

/// `PATCH /v1/runs/{run}`: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Move {
    #[serde(default)]
    pub(crate) priority: Option<i32>,
    /// Before this run, with its priority.
    #[serde(default)]
    pub(crate) before: Option<RunId>,
    /// An empty text takes it away.
    #[serde(default)]
    pub(crate) not_before: Option<String>,
    #[serde(default)]
    pub(crate) finish_by: Option<String>,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) done: String,
}
