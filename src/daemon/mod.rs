//! Assembly: the trial line, the sweep line, and the reports. What joins the edges.

pub(crate) mod api;
mod ask;
pub(crate) mod attempt;
pub(crate) mod begin;
pub(crate) mod estimate;
pub(crate) mod finding;
pub(crate) mod gpu;
pub(crate) mod installed;
mod lanes;
pub(crate) mod learned;
pub(crate) mod line;
pub(crate) mod open;
pub(crate) mod order;
pub(crate) mod policy;
pub(crate) mod prepare;
pub(crate) mod progress;
mod provenance;
pub(crate) mod queue;
pub(crate) mod reports;
pub(crate) mod resume;
pub(crate) mod service;
pub(crate) mod stopping;
pub(crate) mod trial;
pub(crate) mod verdict;
pub(crate) mod version;
pub(crate) mod why;
