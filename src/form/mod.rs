//! Reading a TOML file that a person wrote, so that every mistake in it is told at once.
//!
//! A reader asks a table for its keys one by one and gets checked values; each mistake goes to one
//! list with its line, its column and a remedy. Keys that nobody asked for are mistakes too. This
//! part never touches a disk, except through `host`, which tests replace.
//!
//! Invariant: a value leaves `read` only if the list of problems is empty.

mod choice;
mod field;
mod fields;
pub(crate) mod host;
mod problem;
mod spelling;

#[cfg(test)]
mod tests;

pub(crate) use choice::choose;
pub(crate) use field::{Field, Wrong};
pub(crate) use fields::{Fields, read};
#[cfg(test)]
pub(crate) use problem::Problem;
pub(crate) use problem::Problems;
pub(crate) use spelling::{did_you_mean, listed, nearest};
