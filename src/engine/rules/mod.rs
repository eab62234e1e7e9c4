//! Why an engine failed: its log's lines against the rules, and what was seen from outside. Pure.
//!
//! `scan` reads the log as it passes, `reading` keeps what was found, `symptom` is what was seen from
//! outside, `verdict` weighs them. A run and `sweepd diagnose` use the same four.
//!
//! Of all lines that a rule knows, the earliest that names a cause wins; what followed from it is
//! evidence at most. How the process ended speaks only where the log names no cause.

mod normal;
pub(in crate::engine) mod parse;
mod reading;
pub(crate) mod rule;
pub(crate) mod scan;
mod symptom;
mod verdict;

pub(crate) use reading::Matcher;
pub(crate) use symptom::{Circumstances, Symptom};
pub(crate) use verdict::{Judgement, diagnose, judge, symptom_of};

#[cfg(test)]
mod score_tests;
#[cfg(test)]
pub(in crate::engine) mod tests;
