//! Leases: one lock for each GPU, by its UUID, among all sweepds of this machine.
//!
//! The lock belongs to an open file description. sweepd shares its descriptor with the guard, so the
//! lease ends when both have let go: with the engine's last descendant, also after sweepd was killed.
//! Nothing is ever unlocked by name, only closed. Invariant: a lock file is never removed, for a
//! removed one could be locked twice.

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Who holds a lease; for people, nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) run: String,
    pub(crate) trial: String,
    pub(crate) pid: u32,
    /// RFC 3339, UTC.
    pub(crate) since: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {}, trial {} (pid {}, since {})", self.run, self.trial, self.pid, self.since)
    }
}

/// A held lock. Closing the last descriptor of it ends the lease.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) uuid: String,
    file: File,
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[derive(Debug)]
pub(crate) enum Taken {
    Lease(Lease),
    /// By another; who, if it says so.
    Held(Option<Holder>),
}

/// A GPU that was not given back as it was: no trial before it is clean again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Quarantine {
    pub(crate) since: String,
    pub(crate) run: String,
    pub(crate) trial: String,
    pub(crate) diagnosis: String,
}

/// The folder of leases.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    folder: PathBuf,
}

impl Leases {
    /// `shared`: what all sweepds of this machine share. Made when the first lease is taken.
    pub(crate) fn at(shared: &Path) -> Self {
        Self { folder: shared.join("gpu") }
    }

    fn path(&self, uuid: &str, what: &str) -> PathBuf {
        let safe: String = uuid
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        self.folder.join(format!("{safe}.{what}"))
    }

    pub(crate) fn take(&self, uuid: &str, holder: &Holder) -> io::Result<Taken> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path(uuid, "lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Taken::Held(read(&path))),
            Err(error) => return Err(error.into()),
        }
        // Only the holder writes.
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(holder)?)?;
        Ok(Taken::Lease(Lease { uuid: uuid.to_owned(), file }))
    }

    /// Who holds the lease now; `None`: nobody.
    pub(crate) fn holder(&self, uuid: &str) -> Option<Holder> {
        let path = self.path(uuid, "lock");
        let file = File::open(&path).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => read(&path),
            Ok(()) | Err(_) => None,
        }
    }

    pub(crate) fn quarantine(&self, uuid: &str, why: &Quarantine) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path(uuid, "quarantine");
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(why)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    }

    pub(crate) fn quarantined(&self, uuid: &str) -> Option<Quarantine> {
        read(&self.path(uuid, "quarantine"))
    }

    /// It was seen to be clean again.
    pub(crate) fn lift(&self, uuid: &str) -> io::Result<()> {
        match fs::remove_file(self.path(uuid, "quarantine")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn holder(trial: &str) -> Holder {
        Holder { run: "r".into(), trial: trial.into(), pid: 1, since: "now".into() }
    }

    #[test]
    fn one_holds_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::at(dir.path());
        assert_eq!(leases.holder("GPU-1"), None);
        let Taken::Lease(lease) = leases.take("GPU-1", &holder("a")).unwrap() else { panic!() };
        let Taken::Held(who) = leases.take("GPU-1", &holder("b")).unwrap() else { panic!() };
        assert_eq!(who, Some(holder("a")));
        assert_eq!(leases.holder("GPU-1"), Some(holder("a")));
        assert!(matches!(leases.take("GPU-2", &holder("b")).unwrap(), Taken::Lease(_)));
        drop(lease);
        assert_eq!(leases.holder("GPU-1"), None);
        assert!(matches!(leases.take("GPU-1", &holder("b")).unwrap(), Taken::Lease(_)));
    }

    #[test]
    fn a_shared_descriptor_keeps_the_lease() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::at(dir.path());
        let Taken::Lease(lease) = leases.take("GPU-1", &holder("a")).unwrap() else { panic!() };
        let guards = lease.as_fd().try_clone_to_owned().unwrap();
        drop(lease);
        assert_eq!(leases.holder("GPU-1"), Some(holder("a")));
        drop(guards);
        assert_eq!(leases.holder("GPU-1"), None);
    }

    #[test]
    fn a_quarantine_lasts_until_it_is_lifted() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::at(dir.path());
        let why = Quarantine {
            since: "now".into(),
            run: "r".into(),
            trial: "t".into(),
            diagnosis: "9 GiB are still in use".into(),
        };
        leases.lift("GPU-1").unwrap();
        leases.quarantine("GPU-1", &why).unwrap();
        assert_eq!(leases.quarantined("GPU-1"), Some(why));
        leases.lift("GPU-1").unwrap();
        assert_eq!(leases.quarantined("GPU-1"), None);
    }
}
