//! What crosses the border to the load process: one plan in, one event a line out.
//!
//! The plan is one line of JSON on stdin. Stdin then stays open: a line `stop` ends the phase
//! now (streams are closed, their requests recorded as cancelled), and end of file means that
//! the parent is gone, which ends it too. Records go to a file of frames (`load::frames`).

use super::peer::Peer;
use crate::engine::request::Draft;
use crate::ids::Name;
use crate::run::phase::PhaseFacts;
use crate::run::slo::Class;
use crate::units::count_f64;
use crate::workload::dataset::Part;
use crate::workload::schedule::{OpenLoop, Stage};
use crate::workload::shape::Shape;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// One phase to drive. Durations are nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadPlan {
    pub(crate) phase: Name,
    /// IPv4 literal; engines are reached on loopback.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What requests name as their host.
    pub(crate) authority: String,
    pub(crate) peer: Peer,
    /// Path and body without the prompt.
    pub(crate) request: RequestPlan,
    pub(crate) prompts: PromptPlan,
    pub(crate) users: u32,
    /// Event loops at most.
    pub(crate) loops: u32,
    pub(crate) min_requests: u32,
    /// No more than these are sent.
    pub(crate) max_requests: Option<u32>,
    pub(crate) min_duration_ns: u64,
    pub(crate) pattern: LoadPattern,
    pub(crate) phase_deadline_ns: u64,
    pub(crate) request_deadline_ns: u64,
    pub(crate) stall_ns: u64,
    /// None: a connection for each request.
    pub(crate) keep_alive_ns: u64,
    /// Where the frames of records go. Created by the load process; must not exist.
    pub(crate) records: PathBuf,
}

impl LoadPlan {
    /// Who asks, in words.
    pub(crate) fn who(&self) -> String {
        match &self.pattern {
            LoadPattern::Closed { .. } if self.users == 1 => "1 user".to_owned(),
            LoadPattern::Closed { .. } => format!("{} users", self.users),
            LoadPattern::Open { schedule, .. } => {
                format!("{}, at most {} in flight", schedule.describe(), self.users)
            }
        }
    }

    /// When it is done.
    pub(crate) fn goal(&self) -> Goal {
        match &self.pattern {
            LoadPattern::Closed { .. } => Goal::AtLeast {
                requests: self.min_requests,
                duration: Duration::from_nanos(self.min_duration_ns),
            },
            LoadPattern::Open { schedule, .. } => Goal::Schedule {
                requests: schedule.expected_requests(),
                duration: schedule.expected(),
            },
        }
    }
}

/// When a phase is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Both are met.
    AtLeast { requests: u32, duration: Duration },
    /// All that is scheduled was sent: about so many requests in about so long.
    Schedule { requests: f64, duration: Duration },
}

impl Goal {
    /// How far the phase is, from 0 to 100: the lesser of the shares of its requests and its time.
    pub(crate) fn percent(self, tick: &LoadTick) -> f64 {
        let share = |have: f64, want: f64| if want > 0.0 { (have / want).min(1.0) } else { 1.0 };
        let elapsed = Duration::from_nanos(tick.elapsed_ns).as_secs_f64();
        let (requests, duration) = match self {
            Self::AtLeast { requests, duration } => {
                (share(count_f64(tick.ok + tick.failed), f64::from(requests)), duration)
            }
            Self::Schedule { requests, duration } => {
                (share(count_f64(tick.sent), requests), duration)
            }
        };
        100.0 * requests.min(share(elapsed, duration.as_secs_f64()))
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = |span: Duration| {
            let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
            humantime::format_duration(Duration::from_secs(seconds))
        };
        match self {
            Self::AtLeast { requests, duration: Duration::ZERO } => {
                write!(f, "at least {requests} requests")
            }
            Self::AtLeast { requests: 0, duration } => {
                write!(f, "at least {}", humantime::format_duration(*duration))
            }
            Self::AtLeast { requests, duration } => {
                let duration = humantime::format_duration(*duration);
                write!(f, "at least {requests} requests and {duration}")
            }
            Self::Schedule { requests, duration } => {
                write!(f, "about {requests:.0} requests in {}", whole(*duration))
            }
        }
    }
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

    /// What an open loop goes through; empty at one rate.
    pub(crate) fn stages(&self) -> &[Stage] {
        match self {
            Self::Open { schedule: OpenLoop::Stages { stages, .. }, .. } => stages,
            Self::Open { schedule: OpenLoop::Rate { .. } | OpenLoop::Trace { .. }, .. }
            | Self::Closed { .. } => &[],
        }
    }
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
    /// Of a data set: the phase's own; without one all of it.
    pub(crate) part: Option<Part>,
    /// Of the requests; empty where the sweep names none.
    pub(crate) classes: Vec<Class>,
}

impl PromptPlan {
    /// So many plain words: for a server that does not look at them.
    pub(crate) const fn words(prompt_tokens: u32) -> Self {
        Self {
            tokenizer: None,
            prompt_tokens,
            shape: Shape::Random,
            seed: 1,
            part: None,
            classes: Vec::new(),
        }
    }
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
    Done { facts: Box<PhaseFacts> },
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_S: Duration = Duration::from_secs(10);

    #[track_caller]
    fn check(goal: Goal, (sent, ended, seconds): (u64, u64, u64), want: f64) {
        let tick = LoadTick {
            elapsed_ns: seconds * 1_000_000_000,
            sent,
            ok: ended,
            ..LoadTick::default()
        };
        assert!((goal.percent(&tick) - want).abs() < 1e-9, "{}", goal.percent(&tick));
    }

    #[test]
    fn a_phase_is_as_far_as_the_lesser_of_requests_and_duration() {
        let both = Goal::AtLeast { requests: 10, duration: TEN_S };
        check(both, (9, 9, 2), 20.0);
        check(both, (9, 1, 9), 10.0);
        check(Goal::AtLeast { requests: 0, duration: TEN_S }, (9, 9, 5), 50.0);
        // Of a schedule what was sent counts, answered or not, and it is not done at once.
        let schedule = Goal::Schedule { requests: 100.0, duration: TEN_S };
        check(schedule, (0, 0, 0), 0.0);
        check(schedule, (40, 0, 5), 40.0);
        check(schedule, (110, 3, 11), 100.0);
    }

    #[test]
    fn a_goal_names_only_what_was_asked() {
        for (goal, want) in [
            (Goal::AtLeast { requests: 10, duration: TEN_S }, "at least 10 requests and 10s"),
            (Goal::AtLeast { requests: 10, duration: Duration::ZERO }, "at least 10 requests"),
            (Goal::AtLeast { requests: 0, duration: TEN_S }, "at least 10s"),
            (
                Goal::Schedule { requests: 299.7, duration: Duration::from_millis(59_500) },
                "about 300 requests in 1m",
            ),
        ] {
            assert_eq!(goal.to_string(), want);
        }
    }
}
