//! The sweep file, checked; and the plan that follows from it. Pure: the machine is looked at
//! through `form::host`, the installed programs through `installed` only.

mod args;
mod classes;
mod client;
pub(crate) mod containment;
mod cpus;
pub(crate) mod dataset;
pub(crate) mod def;
pub(crate) mod gpu;
mod hardware;
pub(crate) mod installed;
#[cfg(test)]
mod installed_tests;
mod load;
pub(crate) mod parse;
mod pattern;
#[cfg(test)]
mod phase_tests;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod preflight;
mod program;
mod search;
pub(crate) mod side;
pub(crate) mod smoke;
mod trace;
mod variants;
mod workload;
