//! What a run is told, and what all its trials share. Only data.

use super::gpu::Machine;
use super::progress::Watcher;
use super::reports::Origin;
use super::stopping::Stopping;
use crate::ids::{Name, RunId};
use crate::store::dirs::RunDir;
use crate::sweep::def::Sweep;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What all trials of a run share.
pub(crate) struct Context<'a> {
    pub(crate) sweep: &'a Sweep,
    pub(crate) run: &'a RunId,
    pub(crate) dir: &'a RunDir,
    pub(crate) cwd: &'a Path,
    pub(crate) sweepd: &'a Path,
    pub(crate) inherited: &'a BTreeMap<String, String>,
    pub(crate) versions: &'a BTreeMap<Name, String>,
    pub(crate) watcher: &'a Watcher,
    pub(crate) stopping: &'a Stopping,
    pub(crate) machine: &'a Machine,
}

impl Context<'_> {
    pub(crate) fn version(&self, variant: &Name) -> Option<&str> {
        self.versions.get(variant).map(String::as_str)
    }
}

/// What to run, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) sweep: Sweep,
    /// The sweep file's text, kept with the run.
    pub(crate) text: String,
    pub(crate) origin: Origin,
    pub(crate) sweepd: PathBuf,
    /// sweepd's own environment, of which engines get what their allow-lists name.
    pub(crate) inherited: BTreeMap<String, String>,
    pub(crate) machine: Machine,
}

impl Order {
    /// The engines' working directory: the sweep file's folder.
    pub(crate) fn cwd(&self) -> &Path {
        self.origin.file.parent().unwrap_or(Path::new("/"))
    }
}
