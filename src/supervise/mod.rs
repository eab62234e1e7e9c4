//! One engine's life: its guard, its log, its process tree, the proof that it serves. Edge.
//!
//! Never signals a process that it did not start: only descendants of the guard, and strays that
//! carry the attempt's marker.

pub(crate) mod cgroup;
pub(crate) mod guard;
pub(crate) mod log;
mod oom;
pub(crate) mod ports;
pub(crate) mod probe;
mod shm;
pub(crate) mod stack;
pub(crate) mod state;
mod stuck;
pub(crate) mod tree;
pub(crate) mod user;
