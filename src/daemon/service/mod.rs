//! The daemon: one task keeps the queue, another runs one trial at a time, and everything else asks.
//!
//! Invariant: what was acknowledged is on the disk. The keeper alone changes the queue, and it
//! writes a decision down before it takes it over.

pub(crate) mod asks;
pub(crate) mod changes;
pub(crate) mod config;
pub(crate) mod current;
pub(crate) mod events;
pub(crate) mod fill;
pub(crate) mod hooks;
pub(crate) mod housekeeping;
pub(crate) mod job;
pub(crate) mod keeper;
pub(crate) mod paths;
pub(crate) mod recover;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tell;
pub(crate) mod view;
