//! Process trees from `/proc`, and signals that cannot hit a stranger.
//!
//! A pid alone is never trusted: it is pinned by a pidfd and its start time is read again before
//! the signal, so a pid that was reused in between is left alone.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;

/// More than the one line of `stat` can have: a name and some fifty numbers.
const STAT_BYTES: usize = 2048;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) state: char,
    /// Clock ticks since boot: with the pid, a process's identity.
    pub(crate) start_ticks: u64,
    /// User and system time so far.
    pub(crate) cpu_ticks: u64,
    pub(crate) resident_pages: u64,
    pub(crate) command: String,
}

/// Parses the one line of `/proc/PID/stat`. The command may hold anything, also `)` and spaces.
pub(crate) fn parse_stat(text: &str) -> Option<Process> {
    let (head, tail) = text.rsplit_once(')')?;
    let (pid, command) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.trim().parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        cpu_ticks: ticks(11)?.saturating_add(ticks(12)?),
        resident_pages: fields.get(21)?.parse().ok()?,
        command: command.to_owned(),
    })
}

pub(crate) fn read(pid: i32) -> Option<Process> {
    // One read: this is done for every process of the machine, again and again.
    let mut buffer = [0; STAT_BYTES];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    parse_stat(&String::from_utf8_lossy(buffer.get(..length)?))
}

/// Every process, zombies too.
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect()
}

/// The living descendants of `ancestor` among `processes`, without itself.
pub(crate) fn descendants(processes: &[Process], ancestor: i32) -> Vec<Process> {
    let parents: HashMap<i32, i32> = processes.iter().map(|p| (p.pid, p.parent)).collect();
    let below = |process: &&Process| {
        let mut pid = process.parent;
        // Bounded: the snapshot is not atomic, so a cycle is conceivable.
        for _ in 0..processes.len() {
            if pid == ancestor {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    processes.iter().filter(|p| p.state != 'Z').filter(below).cloned().collect()
}

/// Processes that carry this attempt's marker, wherever they are in the tree.
pub(crate) fn marked(marker: &str) -> Vec<Process> {
    let wanted = format!("{}={marker}", super::guard::MARKER);
    all()
        .into_iter()
        .filter(|process| process.state != 'Z')
        .filter(|process| {
            fs::read(format!("/proc/{}/environ", process.pid))
                .is_ok_and(|env| env.split(|byte| *byte == 0).any(|var| var == wanted.as_bytes()))
        })
        .collect()
}

/// Sends SIGKILL if the process is still the one that was seen. True when it was sent.
pub(crate) fn kill(process: &Process) -> bool {
    signal(process, Signal::KILL)
}

/// Sends a signal if the process is still the one that was seen.
pub(crate) fn signal(process: &Process, signal: Signal) -> bool {
    let Some(pid) = Pid::from_raw(process.pid) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let same = read(process.pid).is_some_and(|now| now.start_ticks == process.start_ticks);
    same && pidfd_send_signal(&pidfd, signal).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            state: 'S',
            start_ticks: 1,
            cpu_ticks: 0,
            resident_pages: 0,
            command: "x".into(),
        }
    }

    #[test]
    fn a_command_may_hold_brackets_and_spaces() {
        let tail = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 99";
        let got = parse_stat(&format!("42 (a) b (c)) {tail}")).unwrap();
        assert_eq!((got.pid, got.parent, got.state, got.start_ticks), (42, 7, 'S', 12345));
        assert_eq!(got.command, "a) b (c)");
        assert_eq!((got.cpu_ticks, got.resident_pages), (5 + 6, 99));
        assert_eq!(parse_stat("42"), None);
    }

    #[test]
    fn descendants_are_found_at_any_depth_and_zombies_are_not_alive() {
        let mut zombie = process(6, 2);
        zombie.state = 'Z';
        let all = [process(2, 1), process(3, 2), process(4, 3), process(5, 1), zombie];
        let got: Vec<i32> = descendants(&all, 2).iter().map(|p| p.pid).collect();
        assert_eq!(got, [3, 4]);
    }

    #[test]
    fn a_cycle_in_the_snapshot_ends() {
        assert_eq!(descendants(&[process(2, 3), process(3, 2)], 1), []);
    }

    #[test]
    fn a_reused_pid_is_not_signalled() {
        let mut me = read(i32::try_from(std::process::id()).unwrap()).unwrap();
        me.start_ticks += 1;
        assert!(!signal(&me, Signal::CONT));
    }
}
