//! sweepd runs benchmark sweeps of LLM inference servers unattended and leaves
//! a report that can be believed. ARCHITECTURE.md is the map of this crate.

mod cli;
mod clock;
mod cpus;
mod daemon;
mod engine;
mod form;
mod gpu;
mod ids;
mod load;
mod own;
mod physics;
mod report;
mod run;
mod sample;
mod secrets;
mod seed;
mod sim;
mod stats;
mod store;
mod supervise;
mod sweep;
mod units;
mod workload;

pub use cli::main;
