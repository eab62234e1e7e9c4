//! What is sampled beside a phase, and facts of the host. Edge.

pub(crate) mod engine;
pub(crate) mod host;
pub(crate) mod load;
pub(crate) mod model;
pub(crate) mod room;
