//! What was seen of an engine that was given up while it lived, signal by signal. Only data.

use serde::{Deserialize, Serialize};

/// One source, and whether it speaks of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signal {
    pub(crate) source: Source,
    /// `None`: it says nothing about progress, or could not be read.
    pub(crate) progress: Option<bool>,
    /// What was seen, for a reader.
    pub(crate) seen: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The engine's own counters of tokens.
    Counters,
    /// State and CPU time of its processes.
    Processes,
    /// How busy its GPUs were.
    Gpu,
    /// Its health endpoint: evidence only, for it answers while nothing is generated.
    Health,
}

/// What the signals say together, as the end of a sentence.
pub(crate) fn together(signals: &[Signal]) -> String {
    let said: Vec<&str> = signals.iter().map(|signal| signal.seen.as_str()).collect();
    said.join("; ")
}
