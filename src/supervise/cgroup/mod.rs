//! Control groups for engines, where the kernel and the rights allow.
//!
//! A leaf is made for each attempt, below sweepd's own group or, where that is the root, in a folder
//! `sweepd` of its own. Controllers are switched on only in groups that sweepd was given or made.
//! Nothing here is needed: without it, session, subreaper and marker hold an engine all the same.
//!
//! Invariant: only groups that carry sweepd's own name and whose maker is dead, or that this attempt
//! made, are ever killed or removed.

mod leaf;
mod place;

pub(crate) use leaf::Hold;

use self::place::Hierarchy;
use super::tree;
use crate::run::containment::{Containment, Groups};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where this process may make leaves; looked for once.
#[derive(Debug)]
struct Bases {
    unified: Result<PathBuf, String>,
    memory_v1: Option<PathBuf>,
}

static BASES: OnceLock<Bases> = OnceLock::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Makes the groups of one attempt, with a limit on its memory where one is asked for.
///
/// An error is only a limit that was asked for and cannot be set.
pub(crate) fn make(memory_limit_bytes: Option<u64>) -> Result<Containment, String> {
    let bases = BASES.get_or_init(find);
    let mut made = Containment {
        means: ["session", "subreaper", "marker"].map(str::to_owned).to_vec(),
        memory_limit_bytes,
        ..Containment::default()
    };
    let unified = bases.unified.as_ref().map_err(Clone::clone).and_then(|base| new_leaf(base));
    match unified {
        Ok(leaf) => {
            made.means.push("cgroup v2".to_owned());
            made.kill = leaf.join("cgroup.kill").exists();
            made.populated = leaf.join("cgroup.events").exists();
            made.memory = leaf.join("memory.events").exists();
            made.groups.unified = Some(leaf);
        }
        Err(why) => made.without = Some(why),
    }
    if !made.memory
        && let Some(base) = &bases.memory_v1
        && let Ok(leaf) = new_leaf(base)
    {
        made.means.push("memory cgroup v1".to_owned());
        made.memory = leaf.join("memory.oom_control").exists();
        made.groups.memory_v1 = Some(leaf);
    }
    if let Some(bytes) = memory_limit_bytes
        && let Err(why) = limit(&made.groups, made.memory, bytes)
    {
        remove_empty(&made.groups);
        return Err(why);
    }
    Ok(made)
}

/// Removes groups that nothing ran in.
pub(crate) fn remove_empty(groups: &Groups) {
    for leaf in [&groups.unified, &groups.memory_v1].into_iter().flatten() {
        // One that is in use is not removed by this.
        fs::remove_dir(leaf).ok();
    }
}

fn limit(groups: &Groups, memory: bool, bytes: u64) -> Result<(), String> {
    let cannot = |why: String| format!("`memory_max` cannot be held here: {why}");
    let write = |path: PathBuf, text: &str| {
        fs::write(&path, text).map_err(|error| cannot(format!("{}: {error}", path.display())))
    };
    match (&groups.unified, &groups.memory_v1) {
        (Some(leaf), None) if memory => {
            write(leaf.join("memory.max"), &bytes.to_string())?;
            // Half an engine is of no use: the kernel ends all of it.
            write(leaf.join("memory.oom.group"), "1")?;
            // Swapping would turn a limit into a slow engine. Absent where there is no swap.
            fs::write(leaf.join("memory.swap.max"), "0").ok();
            Ok(())
        }
        (_, Some(leaf)) if memory => {
            write(leaf.join("memory.limit_in_bytes"), &bytes.to_string())?;
            fs::write(leaf.join("memory.memsw.limit_in_bytes"), bytes.to_string()).ok();
            Ok(())
        }
        _ => Err(cannot("there is no control group with a memory controller".to_owned())),
    }
}

fn find() -> Bases {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (mounts, groups) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
    let unified = match place::unified(&mounts, &groups) {
        None => Err("there is no unified hierarchy of control groups".to_owned()),
        Some(hierarchy) => unified_base(&hierarchy),
    };
    let memory_v1 = place::memory_v1(&mounts, &groups).map(|hierarchy| hierarchy.own);
    for base in unified.iter().chain(&memory_v1) {
        sweep(base);
    }
    Bases { unified, memory_v1 }
}

/// Below the own group; at the root of the hierarchy, in a folder of its own.
fn unified_base(hierarchy: &Hierarchy) -> Result<PathBuf, String> {
    let base = if hierarchy.at_root() {
        let base = hierarchy.mount.join("sweepd");
        match fs::create_dir(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("cannot make {}: {error}", base.display()));
            }
            _ => base,
        }
    } else {
        hierarchy.own.clone()
    };
    if nix::unistd::access(&base, nix::unistd::AccessFlags::W_OK).is_err() {
        return Err(format!("{} may not be written: it was not delegated", base.display()));
    }
    if hierarchy.at_root() || is_delegated(&base) {
        enable_memory(&base);
    }
    Ok(base)
}

/// As the service manager marks a group that it leaves to its owner. One that belongs to another
/// user than root and may be written was given, too.
fn is_delegated(group: &Path) -> bool {
    let marked = ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(group, *name, &mut value)
            .is_ok_and(|length| value.get(..length) == Some(b"1"))
    });
    marked || !nix::unistd::geteuid().is_root()
}

/// Best effort: what it came to shows in the leaf's files.
fn enable_memory(base: &Path) {
    let control = base.join("cgroup.subtree_control");
    let enable = || fs::write(&control, "+memory");
    let busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
    if enable().is_err_and(|error| busy(&error)) && move_own(base) {
        enable().ok();
    }
}

/// A group with processes may not hand controllers on: sweepd moves itself into a leaf, if it and
/// its children are alone.
fn move_own(base: &Path) -> bool {
    let Ok(me) = i32::try_from(std::process::id()) else { return false };
    let Ok(text) = fs::read_to_string(base.join("cgroup.procs")) else { return false };
    let here: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let children = tree::descendants(&tree::all(), me);
    let own = |pid: &i32| *pid == me || children.iter().any(|child| child.pid == *pid);
    let leaf = base.join("supervisor");
    if !here.iter().all(own) || (fs::create_dir(&leaf).is_err() && !leaf.is_dir()) {
        return false;
    }
    let procs = leaf.join("cgroup.procs");
    here.iter().all(|pid| fs::write(&procs, pid.to_string()).is_ok())
}

fn new_leaf(base: &Path) -> Result<PathBuf, String> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let start = tree::read(pid).map_or(0, |process| process.start_ticks);
    let leaf = base.join(place::leaf_name(pid, start, NEXT.fetch_add(1, Ordering::Relaxed)));
    let made = fs::create_dir(&leaf).map(|()| leaf.clone());
    made.map_err(|error| format!("cannot make {}: {error}", leaf.display()))
}

/// Leaves of sweepds that were killed together with their guards: a guard holds a lock on its leaf
/// as long as it lives.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((pid, start)) = name.to_str().and_then(place::owner) else { continue };
        if tree::read(pid).is_some_and(|process| process.start_ticks == start) {
            continue;
        }
        let leaf = entry.path();
        let Ok(folder) = File::open(&leaf) else { continue };
        if let Ok(_lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            tracing::warn!(leaf = %leaf.display(), "removing what a dead sweepd left");
            // Only the unified hierarchy has this file; elsewhere a group in use stays.
            fs::write(leaf.join("cgroup.kill"), "1").ok();
            leaf::remove(&leaf);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
