//! What the load generator knows about a phase when it is over.

use crate::ids::Name;
use crate::run::slo::Class;
use crate::units::MonoNs;
use crate::workload::dataset::PartFacts;
use crate::workload::schedule::Stage;
use serde::{Deserialize, Serialize};

/// Why a phase stopped sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PhaseEnd {
    /// `min_requests` and `min_duration` were both met.
    Finished,
    /// The phase's deadline came first.
    Deadline,
    /// No stream made progress for the stall deadline.
    Hang,
    /// Connections were refused or failed one after another: nobody serves.
    EngineGone,
    /// Request after request was answered with a failure, for as long as the stall deadline.
    OnlyFailures,
    /// sweepd was told to stop.
    Stopped,
}

/// What generating the load cost, and whether the client kept up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientCost {
    pub(crate) user_cpu_s: f64,
    pub(crate) system_cpu_s: f64,
    pub(crate) max_rss_bytes: u64,
    pub(crate) loop_turns: u64,
    /// Longest time between two turns of the event loop while there was work.
    pub(crate) max_turn_gap_ns: i64,
    pub(crate) reads: u64,
    /// Reads that held more than one event, so that their times are bounds.
    pub(crate) coalesced_reads: u64,
    pub(crate) clock_steps: u32,
    /// Turns of the loop, or waits within one, of more than 50 ms.
    #[serde(default)]
    pub(crate) stalls: u32,
    /// 99 of 100 reads came within this after their packet; a power of two.
    #[serde(default)]
    pub(crate) read_lag_p99_ns: Option<i64>,
    /// The limits that it ran under.
    #[serde(default)]
    pub(crate) open_files: Option<u64>,
    #[serde(default)]
    pub(crate) cpus: Option<u32>,
    /// Of the loop: below zero where it was put before others.
    #[serde(default)]
    pub(crate) niceness: Option<i32>,
    /// Event loops, each a thread; lags are those of the worst. Absent: one, as it always was.
    #[serde(default)]
    pub(crate) loops: Option<u32>,
}

/// What a phase under TLS ran under.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TlsFacts {
    /// False where the user asked for any certificate to be taken.
    pub(crate) verified: bool,
    /// Version and cipher of the first connection; absent where none came about.
    pub(crate) protocol: Option<String>,
}

/// An open loop's schedule, and how far the client kept it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenFacts {
    /// Requests in the schedule, and when the last of them was due.
    pub(crate) scheduled: u64,
    pub(crate) scheduled_s: f64,
    /// Never begun, because the phase ended before.
    pub(crate) not_started: u64,
    /// Begun more than 10 ms after they were due.
    pub(crate) late: u64,
    /// How often a request that was due found no room among those in flight.
    pub(crate) held_back: u64,
    pub(crate) max_start_lag_ns: i64,
}

/// One phase of one attempt, as the load generator saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseFacts {
    pub(crate) phase: Name,
    pub(crate) users: u32,
    /// When the first request was due.
    pub(crate) started: MonoNs,
    /// When every user first had a request under way: the steady window begins.
    pub(crate) full_at: Option<MonoNs>,
    /// When the phase stopped sending: the steady window ends.
    pub(crate) stopped_at: MonoNs,
    /// When the last stream ended.
    pub(crate) ended: MonoNs,
    pub(crate) end: PhaseEnd,
    pub(crate) records: u64,
    pub(crate) client: ClientCost,
    /// The share of prompt tokens that a prefix cache is meant to know.
    #[serde(default)]
    pub(crate) intended_cached: f64,
    /// How it used its part of a data set; absent where there is none.
    #[serde(default)]
    pub(crate) dataset: Option<Box<PartFacts>>,
    /// Of its requests; empty where the sweep names none.
    #[serde(default)]
    pub(crate) classes: Vec<Class>,
    /// What an open loop goes through; empty at one rate.
    #[serde(default)]
    pub(crate) stages: Vec<Stage>,
    /// Absent for a closed loop.
    #[serde(default)]
    pub(crate) open: Option<OpenFacts>,
    /// Absent for plain HTTP.
    #[serde(default)]
    pub(crate) tls: Option<TlsFacts>,
    /// False where the kernel gave no receive stamps at all.
    pub(crate) kernel_stamps: bool,
}
