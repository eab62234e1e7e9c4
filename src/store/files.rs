//! Whole files: written so that a crash leaves the old one or the new one.

use crate::run::FORMAT;
use crate::secrets;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a run could not be stored or read. Each message completes "cannot go on: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    // Not named `source`: the message says it, and a chain of causes would say it again.
    #[error("cannot {action} {}: {cause}", .path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} has format {found}; this sweepd reads up to {FORMAT}", .path.display())]
    TooNew { path: PathBuf, found: u64 },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause }
    }

    /// It may go better when there is space again.
    pub(crate) fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { cause, .. } if matches!(cause.kind(), StorageFull | QuotaExceeded))
    }

    pub(crate) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Writes a file whole, without secrets: temporary, fsync, rename, fsync of the folder.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let bytes = secrets::redacted_bytes(bytes);
    write_with(path, |file| file.write_all(&bytes))
}

/// As `write`, for a writer that streams. On an error the old file stays as it was.
pub(crate) fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let written = File::create(&temporary).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if let Err(cause) = renamed {
        // Best effort: a leftover temporary file is no damage.
        fs::remove_file(&temporary).ok();
        return Err(StoreError::Io { action: "write", path: path.to_owned(), cause });
    }
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes a rename or a new entry survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", folder))
}

/// Removes what `write` leaves when the process dies in it, in a folder and those below.
pub(crate) fn remove_temporaries(folder: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::io("list", folder))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_temporaries(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| StoreError::damaged(path, error))?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// A file that may be missing.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(
    path: &Path,
) -> Result<Option<T>, StoreError> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

/// Reads a JSON file; a `format` beyond ours is refused before its fields are looked at.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(StoreError::io("read", path))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| StoreError::damaged(path, error))?;
    check_format(path, value.get("format").and_then(serde_json::Value::as_u64))?;
    serde_json::from_value(value).map_err(|error| StoreError::damaged(path, error))
}

pub(crate) fn check_format(path: &Path, found: Option<u64>) -> Result<(), StoreError> {
    match found {
        Some(found) if found > u64::from(FORMAT) => {
            Err(StoreError::TooNew { path: path.to_owned(), found })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |_| Err(io::Error::other("disk full")));
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_json(&path, &serde_json::json!({"format": 99})).unwrap();
        let message = read_json::<serde_json::Value>(&path).unwrap_err().to_string();
        assert!(message.contains("format 99") && message.contains("up to 1"), "{message}");
    }

    #[test]
    fn half_a_file_is_named_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write(&path, b"{\"a\": ").unwrap();
        let error = read_json::<serde_json::Value>(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
