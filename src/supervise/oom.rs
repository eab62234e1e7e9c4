//! What the kernel says of memory that ran out while an attempt ran: counts and its log.
//!
//! Needs no rights for the host's count; the log may be closed to all but root. What cannot be read
//! is absent.

use super::cgroup::Hold;
use crate::run::containment::KernelEvidence;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// A flooded kernel log is not read to its end.
const RECORDS: usize = 20_000;
const LINES: usize = 8;

/// Begun before the engine is.
#[derive(Debug)]
pub(crate) struct KernelWatch {
    log: Option<File>,
    kills_before: Option<u64>,
}

impl KernelWatch {
    pub(crate) fn begin() -> Self {
        let log = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/kmsg")
            .ok()
            // Only what is new.
            .and_then(|mut log| log.seek(SeekFrom::End(0)).is_ok().then_some(log));
        Self { log, kills_before: host_kills() }
    }

    /// Before the groups are removed, for their counts go with them.
    pub(crate) fn end(mut self, hold: &Hold, leader: i32) -> KernelEvidence {
        let mut evidence = KernelEvidence::default();
        hold.read(&mut evidence);
        let kills = host_kills().zip(self.kills_before);
        evidence.host_oom_kills = kills.map(|(after, before)| after.saturating_sub(before));
        if let Some(log) = &mut self.log {
            evidence.kernel_log = relevant(log, leader, hold.name());
        }
        evidence
    }
}

/// `oom_kill` in `/proc/vmstat`.
fn host_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Each read gives one record.
fn relevant(log: &mut impl Read, leader: i32, group: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = [0; 8192];
    for _ in 0..RECORDS {
        let record = match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()),
            // Records were overwritten before they were read: the next ones are there.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if let Some(text) = message(&record)
            && concerns(text, leader, group)
            && lines.len() < LINES
        {
            lines.push(text.to_owned());
        }
    }
    lines
}

/// `priority,sequence,time,flags;text` and further lines of key and value.
fn message(record: &str) -> Option<&str> {
    record.split_once(';')?.1.lines().next()
}

fn concerns(text: &str, leader: i32, group: Option<&str>) -> bool {
    let about_memory = text.contains("Killed process ")
        || text.starts_with("oom-kill:")
        || text.contains("invoked oom-killer");
    let ours = text.contains(&format!("Killed process {leader} "))
        || text.contains(&format!("pid={leader},"))
        || group.is_some_and(|group| text.contains(group));
    about_memory && ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_about_this_engine_count() {
        let killed = "Memory cgroup out of memory: Killed process 77 (python) total-vm:9kB";
        let group =
            "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/sweepd/sweepd-1-2-3,pid=78,uid=0";
        assert!(concerns(killed, 77, None));
        assert!(!concerns(killed, 7, None));
        assert!(concerns(group, 1, Some("sweepd-1-2-3")));
        assert!(concerns(group, 78, None));
        assert!(!concerns(group, 1, None));
        assert!(!concerns("python[77]: segfault", 77, None));
    }

    #[test]
    fn a_record_is_a_head_and_a_text() {
        assert_eq!(message("6,12,34,-;oom-kill: x\n SUBSYSTEM=y"), Some("oom-kill: x"));
        assert_eq!(message("none"), None);
    }
}
