//! What is asked: prompts of an exact length.

pub(crate) mod dataset;
pub(crate) mod prompts;
pub(crate) mod schedule;
pub(crate) mod shape;
pub(crate) mod tokens;
pub(crate) mod trace;
mod words;
