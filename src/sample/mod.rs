//! What is sampled beside a phase, and facts of the host. Edge.

pub(crate) mod host;
pub(crate) mod memory;
#[cfg_attr(not(test), expect(dead_code, reason = "the report's section on hardware comes next"))]
pub(crate) mod model;
