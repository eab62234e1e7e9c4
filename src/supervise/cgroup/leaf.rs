//! One attempt's groups, as its guard holds them: the way in, the kill, the counts, the removal.

use super::place::flat_keyed;
use crate::run::containment::{Groups, KernelEvidence};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Open files through which a process puts itself into the groups, before it becomes the engine.
#[derive(Debug)]
pub(crate) struct Doors(Vec<File>);

impl Doors {
    /// Only makes system calls: it runs between fork and exec.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        for door in &mut self.0 {
            // 0 is whoever writes.
            door.write_all(b"0")?;
        }
        Ok(())
    }
}

/// The groups of one attempt.
#[derive(Debug)]
pub(crate) struct Hold {
    groups: Groups,
    /// Says to later sweepds that a guard is at work here.
    _lock: Option<Flock<File>>,
}

impl Hold {
    pub(crate) fn take(groups: Groups) -> Self {
        let lock = groups.unified.as_ref().and_then(|leaf| {
            Flock::lock(File::open(leaf).ok()?, FlockArg::LockExclusiveNonblock).ok()
        });
        Self { groups, _lock: lock }
    }

    pub(crate) fn doors(&self) -> io::Result<Doors> {
        let open = |leaf: &PathBuf| {
            let path = leaf.join("cgroup.procs");
            OpenOptions::new().write(true).open(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        self.leaves().map(open).collect::<io::Result<Vec<_>>>().map(Doors)
    }

    fn leaves(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.groups.unified, &self.groups.memory_v1].into_iter().flatten()
    }

    /// Ends everything in the group with one write. False where the kernel cannot.
    pub(crate) fn kill(&self) -> bool {
        let Some(leaf) = &self.groups.unified else { return false };
        fs::write(leaf.join("cgroup.kill"), "1").is_ok()
    }

    /// Whether the kernel knows of a process in the group; `None` where it does not say.
    pub(crate) fn populated(&self) -> Option<bool> {
        let events =
            fs::read_to_string(self.groups.unified.as_ref()?.join("cgroup.events")).ok()?;
        flat_keyed(&events).get("populated").map(|count| *count > 0)
    }

    /// The counts, which are gone when the group is.
    pub(crate) fn read(&self, evidence: &mut KernelEvidence) {
        let read = |leaf: &Path, file: &str| fs::read_to_string(leaf.join(file)).ok();
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok());
        if let Some(leaf) = &self.groups.unified
            && let Some(text) = read(leaf, "memory.events")
        {
            evidence.memory_events = flat_keyed(&text);
            evidence.oom_kills = evidence.memory_events.get("oom_kill").copied();
            evidence.source = Some("memory.events".to_owned());
            evidence.memory_peak_bytes = number(read(leaf, "memory.peak"));
        } else if let Some(leaf) = &self.groups.memory_v1
            && let Some(text) = read(leaf, "memory.oom_control")
        {
            evidence.oom_kills = flat_keyed(&text).get("oom_kill").copied();
            evidence.source = Some("memory.oom_control".to_owned());
            evidence.memory_peak_bytes = number(read(leaf, "memory.max_usage_in_bytes"));
        }
    }

    /// The name that the kernel's log would give the group.
    pub(crate) fn name(&self) -> Option<&str> {
        self.leaves().last()?.file_name()?.to_str()
    }

    /// Groups that are still there: a process is left in them.
    pub(crate) fn remove(self) -> Vec<PathBuf> {
        self.leaves().filter(|leaf| !remove(leaf)).cloned().collect()
    }
}

/// Removes an empty group. A process that has just been reaped may count for an instant longer.
pub(super) fn remove(leaf: &Path) -> bool {
    for _ in 0..50 {
        remove_below(leaf);
        match fs::remove_dir(leaf) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(_) => std::thread::sleep(Duration::from_millis(4)),
        }
    }
    false
}

/// An engine may have made groups of its own.
fn remove_below(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            fs::remove_dir(entry.path()).ok();
        }
    }
}
