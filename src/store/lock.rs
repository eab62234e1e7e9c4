//! One sweepd a run: a lock on a file in the run's folder that dies with its holder.
//!
//! Invariant: the file is only written by whoever holds the lock; what it says is for people.

use super::files::StoreError;
use crate::clock;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// How often, and with what pauses, a dead holder's lock is asked for: 2 s in all.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// Who works, or worked, on a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) sweepd: String,
    /// RFC 3339, UTC.
    pub(crate) since: String,
}

/// The lock, held. Dropping it gives it back; so does any death of the process.
#[derive(Debug)]
pub(crate) struct RunLock(#[expect(dead_code, reason = "held, not looked at")] Flock<File>);

/// What came of asking for the lock.
#[derive(Debug)]
pub(crate) enum Asked {
    Taken(RunLock),
    /// By a living process; who it is, where that can be read.
    Held(Option<Holder>),
}

/// Takes the lock of the file at `path`, which is made when it is not there. Blocks for a moment
/// where its holder is dead: a child that it was starting has the lock until it is another program.
pub(crate) fn take(path: &Path) -> Result<Asked, StoreError> {
    for _ in 0..TRIES {
        match try_once(path)? {
            Asked::Held(Some(holder)) if !is_alive(holder.pid) => std::thread::sleep(PAUSE),
            asked => return Ok(asked),
        }
    }
    try_once(path)
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).map(nix::unistd::Pid::from_raw);
    !pid.is_ok_and(|pid| nix::sys::signal::kill(pid, None) == Err(Errno::ESRCH))
}

fn try_once(path: &Path) -> Result<Asked, StoreError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(StoreError::io("read", path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Only now is the file ours to write.
            write(&mut lock).map_err(StoreError::io("write", path))?;
            Ok(Asked::Taken(RunLock(lock)))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(Asked::Held(serde_json::from_str(&text).ok())),
        Err((_, error)) => Err(StoreError::io("lock", path)(error.into())),
    }
}

fn write(lock: &mut Flock<File>) -> std::io::Result<()> {
    let holder = Holder {
        pid: std::process::id(),
        sweepd: env!("CARGO_PKG_VERSION").to_owned(),
        since: clock::wall_time(),
    };
    let mut text = serde_json::to_vec(&holder)?;
    text.push(b'\n');
    lock.set_len(0)?;
    std::io::Seek::rewind(&mut **lock)?;
    lock.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_says_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Asked::Taken(lock) = take(&path).unwrap() else { panic!("nobody holds it") };
        let Asked::Held(Some(holder)) = take(&path).unwrap() else { panic!("it is held") };
        assert_eq!(holder.pid, std::process::id());
        drop(lock);
        assert!(matches!(take(&path).unwrap(), Asked::Taken(_)));
    }

    #[test]
    fn a_dead_holders_lock_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Asked::Taken(lock) = take(&path).unwrap() else { panic!("nobody holds it") };
        assert!(matches!(take(&path).unwrap(), Asked::Held(_)));
        // As if its holder had died in the middle of starting a child.
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let holder = serde_json::json!({ "pid": dead.id(), "sweepd": "", "since": "" });
        std::fs::write(&path, holder.to_string()).unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(lock);
        });
        assert!(matches!(take(&path).unwrap(), Asked::Taken(_)));
        child.join().unwrap();
    }
}
