//! What an engine leaves in `/dev/shm`: compared with what was there before it.
//!
//! A segment is removed only if it is the engine's beyond doubt and of no use to anybody: made while
//! it ran, seen in the memory or the hands of one of its processes or marked with the pid of one, and in nobody's
//! memory and nobody's hands now. Everything else is listed and left alone.

use super::tree::{self, Process};
use crate::run::containment::{Segment, SharedMemory};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

const FOLDER: &str = "/dev/shm";

/// Which file, by device and inode: a name can be given again, and a semaphore is mapped under
/// another name than the one that stays (sem_open(3) makes a file and links it).
type Identity = (u64, u64);

/// Begun before the engine is.
#[derive(Debug)]
pub(crate) struct ShmWatch {
    before: BTreeMap<String, Identity>,
    /// Segments seen in the memory or in the hands of the engine's processes.
    theirs: BTreeSet<Identity>,
    pids: BTreeSet<i32>,
    /// Tells of every new segment, so that whoever made it is looked at while it lives.
    made: Option<Inotify>,
}

impl ShmWatch {
    pub(crate) fn begin() -> Self {
        Self { before: listed(), theirs: BTreeSet::new(), pids: BTreeSet::new(), made: watch() }
    }

    /// Readable when a segment was made.
    pub(crate) fn made(&self) -> Option<BorrowedFd<'_>> {
        self.made.as_ref().map(AsFd::as_fd)
    }

    /// Takes what made it readable; whether there is a segment of which nobody knows whose it is.
    pub(crate) fn take_made(&self) -> bool {
        if let Some(made) = &self.made {
            while made.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        listed().iter().any(|(name, id)| self.is_new(name, *id) && !self.theirs.contains(id))
    }

    fn is_new(&self, name: &str, id: Identity) -> bool {
        self.before.get(name) != Some(&id)
    }

    /// Notes what these processes of the engine have in their memory and in their hands: nothing
    /// while there is no new segment.
    pub(crate) fn look(&mut self, engine: &[Process]) {
        self.pids.extend(engine.iter().map(|process| process.pid));
        if !listed().iter().any(|(name, id)| self.is_new(name, *id)) {
            return;
        }
        for process in engine {
            self.theirs.extend(used_by(process.pid));
        }
    }

    /// When no process of the engine is left.
    pub(crate) fn end(self) -> SharedMemory {
        let mut result = SharedMemory::default();
        let now = listed();
        let new: BTreeMap<_, _> =
            now.into_iter().filter(|(name, id)| self.is_new(name, *id)).collect();
        if new.is_empty() {
            return result;
        }
        let users = users(new.values());
        for (name, id) in new {
            let path = format!("{FOLDER}/{name}");
            let bytes = fs::metadata(&path).map_or(0, |file| file.len());
            let theirs = self.theirs.contains(&id);
            let judged = judge(&name, theirs, &self.pids, users.get(&id).copied());
            let segment = |because: String| Segment { name: name.clone(), bytes, because };
            match judged {
                Ok(why) if fs::remove_file(&path).is_ok() => result.removed.push(segment(why)),
                Ok(_) => result.left.push(segment("it could not be removed".to_owned())),
                Err(why) => result.left.push(segment(why)),
            }
        }
        result
    }
}

/// `Ok`: it may go, because. `Err`: it stays, because.
fn judge(
    name: &str,
    theirs: bool,
    pids: &BTreeSet<i32>,
    user: Option<i32>,
) -> Result<String, String> {
    if let Some(pid) = user {
        return Err(format!("pid {pid} uses it"));
    }
    if theirs {
        return Ok("an engine process had it, and all of them are gone".to_owned());
    }
    let numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    // A small number is a counter as likely as a pid.
    match numbers.filter(|pid| *pid > 300).find(|pid| pids.contains(pid)) {
        Some(pid) => Ok(format!("its name holds the pid {pid} of an engine process that is gone")),
        None => Err("nothing shows whose it is".to_owned()),
    }
}

fn listed() -> BTreeMap<String, Identity> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let file = |entry: fs::DirEntry| {
        let facts = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((entry.file_name().into_string().ok()?, identity(&facts)))
    };
    entries.filter_map(file).collect()
}

/// `None` where the kernel gives no more watches: then segments are found when somebody looks.
fn watch() -> Option<Inotify> {
    let made = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
    made.add_watch(FOLDER, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).ok()?;
    Some(made)
}

/// The segments that a process has in its memory or open.
fn used_by(pid: i32) -> BTreeSet<Identity> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut used: BTreeSet<Identity> = maps.lines().filter_map(segment_of).collect();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let ours = files.map(|file| file.path()).filter(|file| {
        fs::read_link(file).is_ok_and(|path| path.starts_with(FOLDER) && path.as_os_str() != FOLDER)
    });
    used.extend(ours.filter_map(|file| fs::metadata(file).ok()).map(|file| identity(&file)));
    used
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino())
}

/// The segment in a line of `/proc/PID/maps`, see proc_pid_maps(5). One whose name is gone is the
/// same segment under another name, or nothing that stays.
fn segment_of(line: &str) -> Option<Identity> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (device, inode, path) = (fields.next()?, fields.next()?, fields.next()?);
    path.strip_prefix(FOLDER)?.strip_prefix('/')?;
    let (major, minor) = device.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some((libc::makedev(number(major)?, number(minor)?), inode.parse().ok()?))
}

/// A living process that has one of these segments in its memory or open. A process that may not be
/// looked into belongs to somebody else, and so would its segments: they are not seen in our
/// engine's memory, and stay.
fn users<'n>(segments: impl Iterator<Item = &'n Identity>) -> BTreeMap<Identity, i32> {
    let segments: BTreeSet<&Identity> = segments.collect();
    let mut users = BTreeMap::new();
    for process in tree::all() {
        for used in used_by(process.pid).iter().filter(|used| segments.contains(used)) {
            users.entry(*used).or_insert(process.pid);
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_provably_the_engines_and_unused_goes() {
        let pids = BTreeSet::from([4711, 5]);
        let judge = |name: &str, theirs, user| judge(name, theirs, &pids, user).is_ok();
        assert!(judge("psm_1", true, None));
        assert!(!judge("psm_1", true, Some(9)), "in use");
        assert!(judge("shm_kv_4711_0", false, None));
        assert!(!judge("shm_kv_4712_0", false, None), "another's pid");
        assert!(!judge("loads_5", false, None), "a small number proves nothing");
        assert!(!judge("psm_2", false, None));
    }

    #[test]
    fn a_line_of_maps_names_its_segment() {
        let line = "7f1-7f2 rw-s 00000000 00:1a 77                         /dev/shm/psm_a b";
        assert_eq!(segment_of(line), Some((libc::makedev(0, 0x1a), 77)));
        let linked = "7f1-7f2 rw-s 0 00:1a 7   /dev/shm/sem.Xy12Zw (deleted)";
        assert_eq!(segment_of(linked), Some((libc::makedev(0, 0x1a), 7)));
        assert_eq!(segment_of("7f1-7f2 r-xp 0 08:01 7   /usr/lib/libc.so.6"), None);
    }

    #[test]
    fn a_segment_that_a_process_holds_open_is_in_use() {
        let path = format!("{FOLDER}/sweepd-test-{}", std::process::id());
        let watch = ShmWatch::begin();
        let held = fs::File::create(&path).unwrap();
        let name = path.rsplit('/').next().unwrap().to_owned();
        let me = i32::try_from(std::process::id()).unwrap();
        let id = identity(&held.metadata().unwrap());
        assert_eq!(users([&id].into_iter()).get(&id), Some(&me));
        drop(held);
        let left = watch.end();
        fs::remove_file(&path).unwrap();
        assert!(left.left.iter().any(|segment| segment.name == name), "{left:?}");
        assert!(left.removed.is_empty(), "{left:?}");
    }
}
