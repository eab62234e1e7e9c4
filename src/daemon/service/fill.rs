//! The index at the daemon's start: opened, thrown away where it is damaged, filled from the folders.

use super::paths::Paths;
use super::recover::{self, Loaded, Mode};
use crate::ids::RunId;
use crate::store::dirs::RunDir;
use crate::store::files::StoreError;
use crate::store::index::{Found, Index, IndexError};
use std::collections::HashSet;
use std::path::Path;

/// What the folders hold for the queue.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) open: Vec<(RunId, Loaded)>,
    /// Folders that cannot be read: told, and left alone.
    pub(crate) unreadable: Vec<StoreError>,
}

/// Completes "cannot start: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Index(#[from] IndexError),
}

/// An index that says what the folders say, and the runs that have not ended.
pub(crate) fn index(paths: &Paths) -> Result<(Index, Recovered), FillError> {
    let path = paths.index();
    let (mut index, found) = match Index::open(&path) {
        Err(IndexError::Damaged { reason, .. }) => {
            tracing::warn!(path = %path.display(), reason, "the index is damaged: it is made again");
            throw_away(&path)?;
            Index::open(&path)?
        }
        other => other?,
    };
    let closed = match found {
        Found::Clean | Found::Unclean => index.closed()?,
        Found::New => Vec::new(),
    };
    let recovered = read_folders(paths, &mut index, &closed.into_iter().collect())?;
    index.filled()?;
    Ok((index, recovered))
}

/// Reads every run that the index does not know as closed.
fn read_folders(
    paths: &Paths,
    index: &mut Index,
    closed: &HashSet<RunId>,
) -> Result<Recovered, StoreError> {
    let root = paths.runs();
    let entries = std::fs::read_dir(&root).map_err(StoreError::io("list", &root))?;
    let mut recovered = Recovered::default();
    let mut there = HashSet::new();
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let id = RunId(name);
        there.insert(id.clone());
        if closed.contains(&id) || !entry.path().is_dir() {
            continue;
        }
        match recover::load(&RunDir::open(&entry.path()), Mode::Repair) {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                index.put(&loaded.indexed(&id), &loaded.trials)?;
                if !loaded.is_closed() {
                    recovered.open.push((id, loaded));
                }
            }
            Err(error) => recovered.unreadable.push(error),
        }
    }
    // Folders that somebody removed.
    for gone in closed.difference(&there) {
        index.remove_run(gone)?;
    }
    Ok(recovered)
}

fn throw_away(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", Path::new(&name))(error));
            }
            _ => {}
        }
    }
    Ok(())
}
