//! NVIDIA GPUs through NVML, which lives in a helper process (`sweepd __nvml`). Edge.
//!
//! A driver call can hang in the kernel, where no thread can be cancelled. So no other process of
//! sweepd ever calls NVML: it asks the helper over a pipe, with a deadline, and abandons a helper
//! that does not answer. Invariant: only `helper` touches `nvml_wrapper`.

pub(crate) mod client;
pub(crate) mod facts;
pub(crate) mod fault;
pub(crate) mod frames;
mod helper;
pub(crate) mod lease;
pub(crate) mod message;

pub(crate) use helper::main;
