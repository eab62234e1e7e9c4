//! One engine's life: its guard, its log, its process tree, the proof that it serves. Edge.
//!
//! Never signals a process that it did not start: only descendants of the guard, and strays that
//! carry the attempt's marker.

pub(crate) mod guard;
pub(crate) mod log;
pub(crate) mod ports;
pub(crate) mod probe;
pub(crate) mod state;
pub(crate) mod tree;
