//! From records to figures: per request, per phase of a trial, over trials. Pure.
//!
//! Never reads a file or a clock. Invariant: what was not measured is absent, and every figure
//! says over how many requests or trials it was taken.

pub(crate) mod calibration;
pub(crate) mod cards;
pub(crate) mod cell;
pub(crate) mod compare;
pub(crate) mod cost;
pub(crate) mod data;
pub(crate) mod dataset;
pub(crate) mod energy;
pub(crate) mod engine;
pub(crate) mod goodput;
pub(crate) mod gpu;
pub(crate) mod group;
pub(crate) mod hardware;
pub(crate) mod host;
pub(crate) mod interval;
pub(crate) mod marks;
mod marks_gpu;
pub(crate) mod metric;
pub(crate) mod phase;
pub(crate) mod pool;
pub(crate) mod quantile;
pub(crate) mod request;
mod sample;
pub(crate) mod search;
pub(crate) mod settle;
pub(crate) mod span;
pub(crate) mod summary;
pub(crate) mod window;

#[cfg(test)]
pub(crate) mod fixture;
