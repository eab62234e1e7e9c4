//! Run directories: the files are the truth. Edge.
//!
//! A file is there whole or not at all: written beside its place, fsynced, renamed, its folder
//! fsynced. A trial is finished if and only if its `outcome.json` exists. A file of a newer format
//! is refused and left alone.

pub(crate) mod columns;
pub(crate) mod control;
pub(crate) mod dirs;
pub(crate) mod engine_samples;
pub(crate) mod files;
pub(crate) mod fingerprint;
pub(crate) mod flat;
mod host;
pub(crate) mod index;
pub(crate) mod intents;
pub(crate) mod lock;
pub(crate) mod parquet;
mod telemetry;
