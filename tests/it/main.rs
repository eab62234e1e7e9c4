//! The real binary, driven as a user would, against the simulated engine and a real one.

#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]
#![expect(clippy::disallowed_methods, reason = "tests have deadlines and are set up by variables")]

mod bench;
mod bench_key;
mod bench_tls;
mod calibrate;
mod check;
mod cli;
mod containment;
mod control_api;
mod cpus;
mod daemon;
mod daemon_disk;
mod daemon_kills;
mod daemon_load;
mod diagnose;
mod engines;
mod examples;
mod fault_table;
mod faults;
mod files;
mod gpu;
mod gpu_evidence;
mod gpu_telemetry;
mod gpu_trials;
mod harness;
mod inside;
mod kills;
mod last_look;
mod misbehaving;
mod nvml;
mod pause;
mod policy;
mod real_engine;
mod resume;
mod search;
mod side_by_side;
mod smoke;
mod stopping;
mod tidy;
mod trace;
mod walks;
mod workload;
