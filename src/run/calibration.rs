//! What the load generator adds of its own, measured against a server whose times are known. Data.

use serde::{Deserialize, Serialize};

/// Measured on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    pub(crate) format: u32,
    pub(crate) sweepd: String,
    /// RFC 3339, UTC.
    pub(crate) at: String,
    pub(crate) points: Vec<Point>,
}

/// One concurrency at one token rate. An error is what was reported less what was true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) users: u32,
    /// Of each stream, as the server paced it.
    pub(crate) ttft_ms: f64,
    pub(crate) gap_ms: f64,
    /// What all streams together brought.
    pub(crate) tokens_per_s: f64,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) ttft_p50_error_ms: Option<f64>,
    pub(crate) ttft_p99_error_ms: Option<f64>,
    pub(crate) itl_p99_error_ms: Option<f64>,
    /// The share of gaps of which only bounds are known.
    pub(crate) bounds_only_share: Option<f64>,
    /// Of one CPU: what is left of it is the headroom of the loop.
    pub(crate) cpu_share: f64,
}
