//! What an engine really ran with, and where that differs from what was asked.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Read back from the engine itself when it was ready. Names are `EffectiveName`'s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EffectiveConfig {
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) differences: Vec<Difference>,
    /// What the engine file has a reader for and the engine did not tell.
    pub(crate) unknown: Vec<String>,
}

/// One value that is not what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    pub(crate) name: String,
    pub(crate) asked: String,
    pub(crate) found: String,
}
