//! What crosses the border to the load process: one plan in, one event a line out.
//!
//! The plan is one line of JSON on stdin. Stdin then stays open: a line `stop` ends the phase
//! now (streams are closed, their requests recorded as cancelled), and end of file means that
//! the parent is gone, which ends it too. Records go to a file of frames (`load::frames`).

use crate::engine::request::Draft;
use crate::ids::Name;
use crate::run::phase::PhaseFacts;
use crate::workload::schedule::OpenLoop;
use crate::workload::shape::Shape;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One phase to drive. Durations are nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadPlan {
    pub(crate) phase: Name,
    /// IPv4 literal; engines are reached on loopback.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What requests name as their host.
    pub(crate) authority: String,
    /// Path and body without the prompt.
    pub(crate) request: RequestPlan,
    pub(crate) prompts: PromptPlan,
    pub(crate) users: u32,
    pub(crate) min_requests: u32,
    /// No more than these are sent.
    pub(crate) max_requests: Option<u32>,
    pub(crate) min_duration_ns: u64,
    pub(crate) pattern: LoadPattern,
    pub(crate) phase_deadline_ns: u64,
    pub(crate) request_deadline_ns: u64,
    pub(crate) stall_ns: u64,
    pub(crate) keep_alive_ns: u64,
    /// Where the frames of records go. Created by the load process; must not exist.
    pub(crate) records: PathBuf,
}

/// What decides when a request is due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoadPattern {
    /// Each user's next request follows its last one.
    Closed {
        think_time_ns: u64,
        /// Users begin spread evenly over this.
        ramp_up_ns: u64,
    },
    /// By the clock; `users` is then the most that may be in flight.
    Open {
        schedule: OpenLoop,
        seed: u64,
        /// Where the schedule is kept.
        kept: PathBuf,
    },
}

impl LoadPattern {
    pub(crate) const CLOSED: Self = Self::Closed { think_time_ns: 0, ramp_up_ns: 0 };
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequestPlan {
    pub(crate) path: String,
    pub(crate) draft: Draft,
    pub(crate) output_tokens: u32,
    /// Streams end with `data: [DONE]`; without it a finish reason and a clean end are enough.
    pub(crate) done_marker: bool,
}

/// Prompts are a function of these and of user and turn: never of the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PromptPlan {
    /// Without one, prompts are so many plain words.
    pub(crate) tokenizer: Option<PathBuf>,
    pub(crate) prompt_tokens: u32,
    pub(crate) shape: Shape,
    /// `Seed` of this block and phase, already branched.
    pub(crate) seed: u64,
}

/// One line on the load process's stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum LoadEvent {
    /// Prompts are built; the first request is about to be sent.
    Started,
    /// Once a second.
    Tick(LoadTick),
    /// The last line of a phase that was driven to its end, whatever the end.
    Done { facts: PhaseFacts },
    /// The load process could not do its work: sweepd's fault or the machine's.
    Broken { reason: String },
}

/// Counters since the phase began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadTick {
    pub(crate) elapsed_ns: u64,
    pub(crate) in_flight: u32,
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Events with a choice in them.
    pub(crate) chunks: u64,
    /// Output tokens reported by finished requests.
    pub(crate) output_tokens: u64,
    /// Since any stream brought a byte, while requests are in flight.
    pub(crate) silent_ns: u64,
}
