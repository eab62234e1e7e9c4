//! What the commands read: the environment (here and nowhere else), sweep files, engine folders.

use crate::engine::library::Library;
use crate::form::Problems;
use crate::form::host::Disk;
use crate::sweep::def::Sweep;
use crate::sweep::parse;
use anyhow::Context;
use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

/// The user's input was refused: exit code 2.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Wrong(Problems),
    #[error("cannot read {}: {cause}", .file.display())]
    Unreadable { file: PathBuf, cause: std::io::Error },
    #[error("{} is not a run: it has no plan.json", .0.display())]
    NoRun(PathBuf),
}

/// A sweep file, read and checked.
pub(super) struct Input {
    pub(super) sweep: Sweep,
    pub(super) text: String,
    /// The file's folder, absolute.
    pub(super) folder: PathBuf,
}

pub(super) fn read_sweep(file: &Path, folders: Vec<PathBuf>) -> anyhow::Result<Input> {
    let library = library(folders)?;
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Refused::Unreadable { file: file.to_owned(), cause })?;
    // The folder is made absolute, the name is kept as it was typed, for messages.
    let folder = file.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)
        .with_context(|| format!("cannot find the folder {}", folder.display()))?;
    let sweep = parse::parse(file, &text, &library, &disk()).map_err(Refused::Wrong)?;
    Ok(Input { sweep, text, folder })
}

pub(super) fn library(folders: Vec<PathBuf>) -> anyhow::Result<Library> {
    Ok(Library::load(folders).map_err(Refused::Wrong)?)
}

pub(super) fn disk() -> Disk {
    Disk::new(&env::var_os("PATH").unwrap_or_default())
}

/// The user's folders of engine files, in the order in which they are searched.
pub(super) fn engine_folders(given: Vec<PathBuf>) -> Vec<PathBuf> {
    let own = base("XDG_CONFIG_HOME", ".config").map(|base| base.join("sweepd/engines"));
    given.into_iter().chain(own).collect()
}

/// Where runs are kept unless the user says otherwise.
pub(super) fn runs_folder() -> PathBuf {
    base("XDG_STATE_HOME", ".local/state").unwrap_or_default().join("sweepd/runs")
}

/// An XDG base directory: the variable if it is absolute, as the specification asks, or its default.
fn base(variable: &str, default: &str) -> Option<PathBuf> {
    let given = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    given.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(default)))
}

/// sweepd's own environment. Variables that are not text cannot be named in an allow-list.
pub(super) fn environment() -> BTreeMap<String, String> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
