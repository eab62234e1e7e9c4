//! What is asked: prompts of an exact length.

pub(crate) mod prompts;
pub(crate) mod schedule;
mod words;
