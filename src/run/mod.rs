//! What happened: records, outcomes, marks. Pure data with its format version.
//!
//! An engine's failure is data here, never an `Err`.

pub(crate) mod calibration;
pub(crate) mod containment;
pub(crate) mod cpus;
pub(crate) mod decision;
pub(crate) mod effective;
pub(crate) mod engine_sample;
pub(crate) mod gpu;
pub(crate) mod gpu_phase;
pub(crate) mod host;
pub(crate) mod outcome;
pub(crate) mod phase;
pub(crate) mod provenance;
pub(crate) mod record;
pub(crate) mod search;
pub(crate) mod signal;
pub(crate) mod slo;

/// The version of every file in a run directory. A reader refuses a newer one.
pub(crate) const FORMAT: u32 = 1;
