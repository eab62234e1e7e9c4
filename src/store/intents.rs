//! Things that must be undone: one fsynced file each, written before the action, removed after it
//! was undone.
//!
//! Whoever acts holds a lock on its file that dies with its process, so what a dead process left
//! can be told from what a living one still needs, without trusting a pid. The folder may be
//! shared by several processes. This part never undoes anything itself.
//!
//! Invariant: an intent's file is whole, is there before the action, and goes only after the undoing.

use super::files::{self, StoreError};
use crate::clock;
use crate::run::FORMAT;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What an intent's file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IntentFile {
    pub(crate) format: u32,
    /// Who knows how to undo it: `gpu_clocks`, `cgroup`. Safe as a part of a file's name.
    pub(crate) kind: String,
    /// RFC 3339, UTC.
    pub(crate) written: String,
    /// Of the boot it was written in: what the machine's memory held is gone after another.
    pub(crate) boot_id: String,
    /// For people; nothing is decided by it.
    pub(crate) pid: u32,
    /// What was there before, in the words of its kind.
    pub(crate) before: serde_json::Value,
}

impl IntentFile {
    /// The machine was not started anew since.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }
}

/// An intent that this process holds.
#[derive(Debug)]
pub(crate) struct Intent {
    path: PathBuf,
    pub(crate) file: IntentFile,
    _lock: Flock<File>,
}

impl Intent {
    /// It was undone: its file goes.
    pub(crate) fn remove(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))?;
        self.path.parent().map_or(Ok(()), files::sync_folder)
    }
}

/// The folder of intents.
#[derive(Clone, Debug)]
pub(crate) struct Intents {
    folder: PathBuf,
}

impl Intents {
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes down what is about to be changed. When this returns, a crash forgets nothing.
    pub(crate) fn write(&self, kind: &str, before: &impl Serialize) -> Result<Intent, StoreError> {
        let anchor = clock::anchor();
        let pid = std::process::id();
        let path = self.folder.join(format!("{kind}-{pid}-{}.json", anchor.mono_ns));
        let temporary = path.with_extension("tmp");
        let before =
            serde_json::to_value(before).map_err(|error| StoreError::damaged(&path, error))?;
        let file = IntentFile {
            format: FORMAT,
            kind: kind.to_owned(),
            written: clock::wall_time(),
            boot_id: boot_id(),
            pid,
            before,
        };
        let text =
            serde_json::to_vec_pretty(&file).map_err(|error| StoreError::damaged(&path, error))?;
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(StoreError::io("create", &temporary))
            .and_then(|file| lock(file, &temporary))?;
        let lock = lock.ok_or_else(|| StoreError::damaged(&temporary, "is held by another"))?;
        let written = std::io::Write::write_all(&mut &*lock, &text)
            .and_then(|()| lock.sync_all())
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            fs::remove_file(&temporary).ok();
            return Err(StoreError::io("write", &path)(error));
        }
        files::sync_folder(&self.folder)?;
        Ok(Intent { path, file, _lock: lock })
    }

    /// Every intent whose process is gone, now held by this one. What cannot be read is left alone
    /// and told.
    pub(crate) fn orphans(&self) -> Result<(Vec<Intent>, Vec<StoreError>), StoreError> {
        let entries = fs::read_dir(&self.folder).map_err(StoreError::io("list", &self.folder))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let (mut orphans, mut unreadable) = (Vec::new(), Vec::new());
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
            match adopt(path) {
                Ok(intent) => orphans.extend(intent),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((orphans, unreadable))
    }
}

/// `None`: its process lives, or has just removed it.
fn adopt(path: &Path) -> Result<Option<Intent>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let Some(lock) = lock(file, path)? else { return Ok(None) };
    let links = lock.metadata().map_err(StoreError::io("look at", path))?.nlink();
    if links == 0 {
        return Ok(None);
    }
    let file = files::read_json(path)?;
    Ok(Some(Intent { path: path.to_owned(), file, _lock: lock }))
}

/// `None` where another process holds it.
fn lock(file: File, path: &Path) -> Result<Option<Flock<File>>, StoreError> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(StoreError::io("lock", path)(error.into())),
    }
}

/// Empty where the kernel does not say: then every intent counts as one of this boot.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_living_process_holds_is_no_orphan() {
        let dir = tempfile::tempdir().unwrap();
        let intents = Intents::open(dir.path()).unwrap();
        let held = intents.write("gpu_clocks", &json!({"gpu": "GPU-1"})).unwrap();
        assert!(intents.orphans().unwrap().0.is_empty());
        drop(held); // As if its process had died: the lock goes, the file stays.
        let (orphans, unreadable) = intents.orphans().unwrap();
        assert!(unreadable.is_empty());
        assert_eq!(orphans.len(), 1);
        assert_eq!(orphans[0].file.before, json!({"gpu": "GPU-1"}));
        assert!(orphans[0].file.is_of_this_boot());
        for orphan in orphans {
            orphan.remove().unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_orphan_is_adopted_by_one_only() {
        let dir = tempfile::tempdir().unwrap();
        let intents = Intents::open(dir.path()).unwrap();
        drop(intents.write("cgroup", &json!(null)).unwrap());
        let (first, _) = intents.orphans().unwrap();
        assert_eq!(first.len(), 1);
        assert!(intents.orphans().unwrap().0.is_empty());
    }

    #[test]
    fn one_from_a_newer_sweepd_is_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let intents = Intents::open(dir.path()).unwrap();
        fs::write(dir.path().join("odd-1.json"), "{\"format\": 99}").unwrap();
        let (orphans, unreadable) = intents.orphans().unwrap();
        assert!(orphans.is_empty());
        assert!(unreadable[0].to_string().contains("format 99"));
        assert!(dir.path().join("odd-1.json").exists());
    }
}
