//! What is asked: prompts of an exact length.

pub(crate) mod prompts;
mod words;
