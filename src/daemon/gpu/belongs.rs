//! Whether a pid that the driver names belongs to an attempt.

use crate::supervise::guard::MARKER;
use crate::supervise::tree;
use std::fs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belongs {
    Ours,
    Foreign,
    /// There is no such process in this machine's view: it has ended, or the driver's pids are those of
    /// another namespace, as in a container.
    Unseen,
}

/// By the marker in its environment, or by its descent from this sweepd: an engine may clear the
/// environment of its children.
pub(super) fn belongs(pid: u32, marker: &str) -> Belongs {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Belongs::Unseen };
    let wanted = format!("{MARKER}={marker}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
        return Belongs::Ours;
    }
    let sweepd = i32::try_from(std::process::id()).unwrap_or(0);
    let mut parent = tree::parse_stat(&stat).map(|process| process.parent);
    // Bounded: no tree is so deep.
    for _ in 0..64 {
        match parent {
            Some(pid) if pid == sweepd => return Belongs::Ours,
            Some(pid) if pid > 1 => {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                parent = tree::parse_stat(&stat).map(|process| process.parent);
            }
            Some(_) | None => break,
        }
    }
    Belongs::Foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_ours_a_stranger_is_not_and_nobody_is_unseen() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(belongs(child.id(), "m"), Belongs::Ours);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(belongs(1, "m"), Belongs::Foreign);
        assert_eq!(belongs(u32::MAX - 1, "m"), Belongs::Unseen);
    }
}
