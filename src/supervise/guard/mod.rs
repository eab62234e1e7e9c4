//! The guard: `sweepd __guard`, one process for each attempt, between sweepd and the engine.
//!
//! Single-threaded and without a runtime, so that it cannot be busy with anything else. It is the
//! child subreaper of all that the engine spawns: whatever forks twice or calls `setsid` still
//! becomes its child, and `waitpid` answering ECHILD is its proof that nothing is left. It owns the
//! log pipes. When the socket to sweepd closes, sweepd is dead: the guard stops the engine and
//! exits, so no engine outlives its supervisor.

pub(crate) mod handle;
mod keep;
pub(crate) mod message;
mod output;
mod run;
mod spawn;
mod state;
mod voice;

pub(crate) use handle::GUARD;
pub(crate) use run::main;
pub(crate) use spawn::MARKER;
