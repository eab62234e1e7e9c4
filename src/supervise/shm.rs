//! What an engine leaves in `/dev/shm`: compared with what was there before it.
//!
//! A segment is removed only if it is the engine's beyond doubt and of no use to anybody: made while
//! it ran, seen in the memory of one of its processes or marked with the pid of one, and in nobody's
//! memory and nobody's hands now. Everything else is listed and left alone.

use super::tree::{self, Process};
use crate::run::containment::{Segment, SharedMemory};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

const FOLDER: &str = "/dev/shm";

/// Which file: a name can be given again.
type Identity = (u64, u64);

/// Begun before the engine is.
#[derive(Debug)]
pub(crate) struct ShmWatch {
    before: BTreeMap<String, Identity>,
    /// Segments seen in the memory of the engine's processes.
    mapped: BTreeSet<String>,
    pids: BTreeSet<i32>,
}

impl ShmWatch {
    pub(crate) fn begin() -> Self {
        Self { before: listed(), mapped: BTreeSet::new(), pids: BTreeSet::new() }
    }

    /// Notes what these processes of the engine have in their memory. Costs nothing while the
    /// engine has made no segment.
    pub(crate) fn look(&mut self, engine: &[Process]) {
        self.pids.extend(engine.iter().map(|process| process.pid));
        if listed().iter().all(|(name, id)| self.before.get(name) == Some(id)) {
            return;
        }
        for process in engine {
            self.mapped.extend(mapped_by(process.pid));
        }
    }

    /// When no process of the engine is left.
    pub(crate) fn end(self) -> SharedMemory {
        let mut result = SharedMemory::default();
        let now = listed();
        let new: BTreeMap<_, _> =
            now.into_iter().filter(|(name, id)| self.before.get(name) != Some(id)).collect();
        if new.is_empty() {
            return result;
        }
        let users = users(new.keys());
        for name in new.into_keys() {
            let path = format!("{FOLDER}/{name}");
            let bytes = fs::metadata(&path).map_or(0, |file| file.len());
            let judged = judge(&name, &self.mapped, &self.pids, users.get(&name).copied());
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
    mapped: &BTreeSet<String>,
    pids: &BTreeSet<i32>,
    user: Option<i32>,
) -> Result<String, String> {
    if let Some(pid) = user {
        return Err(format!("pid {pid} uses it"));
    }
    if mapped.contains(name) {
        return Ok("it was in the memory of an engine process, all of which are gone".to_owned());
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
        Some((entry.file_name().into_string().ok()?, (facts.ino(), facts.dev())))
    };
    entries.filter_map(file).collect()
}

fn mapped_by(pid: i32) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter_map(segment_of).collect()
}

/// The segment in a line of `/proc/PID/maps`.
fn segment_of(line: &str) -> Option<String> {
    let (_, path) = line.split_once(FOLDER)?;
    let name = path.strip_prefix('/')?;
    (!name.ends_with(" (deleted)") && !name.contains('/')).then(|| name.to_owned())
}

/// A living process that has one of these segments in its memory or open. A process that may not be
/// looked into belongs to somebody else, and so would its segments: they are not seen in our
/// engine's memory, and stay.
fn users<'n>(names: impl Iterator<Item = &'n String>) -> BTreeMap<String, i32> {
    let names: BTreeSet<&String> = names.collect();
    let mut users = BTreeMap::new();
    for process in tree::all() {
        let pid = process.pid;
        for name in mapped_by(pid).into_iter().chain(opened_by(pid)) {
            if names.contains(&name) {
                users.entry(name).or_insert(pid);
            }
        }
    }
    users
}

fn opened_by(pid: i32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter_map(|path| Some(path.strip_prefix(FOLDER).ok()?.to_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_provably_the_engines_and_unused_goes() {
        let mapped = BTreeSet::from(["psm_1".to_owned()]);
        let pids = BTreeSet::from([4711, 5]);
        let judge = |name: &str, user| judge(name, &mapped, &pids, user).is_ok();
        assert!(judge("psm_1", None));
        assert!(!judge("psm_1", Some(9)), "in use");
        assert!(judge("shm_kv_4711_0", None));
        assert!(!judge("shm_kv_4712_0", None), "another's pid");
        assert!(!judge("loads_5", None), "a small number proves nothing");
        assert!(!judge("psm_2", None));
    }

    #[test]
    fn a_line_of_maps_names_its_segment() {
        let line = "7f1-7f2 rw-s 00000000 00:1a 77                         /dev/shm/psm_a b";
        assert_eq!(segment_of(line).as_deref(), Some("psm_a b"));
        assert_eq!(segment_of("7f1-7f2 rw-s 0 00:1a 7   /dev/shm/x (deleted)"), None);
        assert_eq!(segment_of("7f1-7f2 r-xp 0 08:01 7   /usr/lib/libc.so.6"), None);
    }

    #[test]
    fn a_segment_that_a_process_holds_open_is_in_use() {
        let path = format!("{FOLDER}/sweepd-test-{}", std::process::id());
        let watch = ShmWatch::begin();
        let held = fs::File::create(&path).unwrap();
        let name = path.rsplit('/').next().unwrap().to_owned();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(users([&name].into_iter()).get(&name), Some(&me));
        drop(held);
        let left = watch.end();
        fs::remove_file(&path).unwrap();
        assert!(left.left.iter().any(|segment| segment.name == name), "{left:?}");
        assert!(left.removed.is_empty(), "{left:?}");
    }
}
