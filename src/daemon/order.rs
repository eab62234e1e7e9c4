//! What a run is told, and what all its trials share. Only data.

use super::gpu::Machine;
use super::lanes::Turn;
use super::progress::Watcher;
use super::reports::Origin;
use super::stopping::Stopping;
use crate::ids::{Name, RunId};
use crate::store::dirs::RunDir;
use crate::sweep::def::Sweep;
use crate::sweep::side::SideBySide;
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
    /// Which trials may run at once.
    pub(crate) side: &'a SideBySide,
    /// The trial's own lane.
    pub(crate) turn: &'a Turn<'a>,
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
    /// What sweepd itself was given, as by a job scheduler.
    pub(crate) fn visible_gpus(&self) -> Option<&str> {
        self.inherited.get("CUDA_VISIBLE_DEVICES").map(String::as_str)
    }

    /// The engines' working directory: the sweep file's folder.
    pub(crate) fn cwd(&self) -> &Path {
        self.origin.file.parent().unwrap_or(Path::new("/"))
    }
}
