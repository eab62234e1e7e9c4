//! What a run stood on: versions beside the engine's own, and the model's files.

use crate::ids::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `provenance.json`, written when the run begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    pub(crate) format: u32,
    pub(crate) variants: Vec<StandsOn>,
    /// Each model once, whichever variants use it.
    pub(crate) models: Vec<ModelFiles>,
    /// What requests are taken from.
    #[serde(default)]
    pub(crate) data: Vec<ModelFiles>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StandsOn {
    pub(crate) variant: Name,
    pub(crate) program: Option<String>,
    /// By name: `python`, `torch`.
    pub(crate) versions: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelFiles {
    pub(crate) path: PathBuf,
    pub(crate) files: Vec<ModelFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// SHA-256 of the size and of samples spread over the file; of the whole of a small one.
    pub(crate) sampled_sha256: String,
}
