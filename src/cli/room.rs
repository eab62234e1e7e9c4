//! What the machine lacks for a sweep, told before it begins.

use super::input::Refused;
use crate::sample::room;
use crate::sweep::def::Sweep;
use crate::sweep::preflight;
use std::path::Path;

/// An error that names everything that is missing.
pub(super) fn check(sweep: &Sweep, runs: &Path) -> Result<(), Refused> {
    let lacks = preflight::lacks(sweep, &room::read(runs));
    if lacks.is_empty() {
        return Ok(());
    }
    let told: Vec<String> =
        lacks.iter().map(|lack| format!("{}\n  help: {}", lack.what, lack.remedy)).collect();
    Err(Refused::Other(format!("this machine lacks room for the sweep:\n{}", told.join("\n"))))
}
