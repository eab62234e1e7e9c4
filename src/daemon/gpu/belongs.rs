//! Whether a pid that the driver names belongs to an attempt.

use crate::supervise::guard::{GUARD, MARKER};
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

/// By the attempt that the process, or the nearest of its ancestors, names in its environment: an engine
/// may clear that of its children, and the guard above them all still has it. Another attempt's
/// process is a stranger, also where this same sweepd runs both side by side.
pub(super) fn belongs(pid: u32, marker: &str) -> Belongs {
    let Ok(mut stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Belongs::Unseen;
    };
    let sweepd = std::process::id();
    let mut pid = pid;
    // Bounded: no tree is so deep.
    for _ in 0..64 {
        if pid == sweepd {
            // Below no guard: a helper of sweepd's own.
            return Belongs::Ours;
        }
        if let Some(found) = attempt_of(pid) {
            return if found == marker { Belongs::Ours } else { Belongs::Foreign };
        }
        let parent = tree::parse_stat(&stat).map(|process| process.parent);
        let Some(parent) = parent.and_then(|parent| u32::try_from(parent).ok()) else { break };
        if parent <= 1 {
            break;
        }
        pid = parent;
        stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    }
    Belongs::Foreign
}

/// The attempt that an engine's process or a guard is of.
fn attempt_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
        [MARKER, GUARD].contains(&name).then(|| value.to_owned())
    })
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
        // Of two attempts that run side by side, each has its own; the guard speaks for a child whose
        // engine has cleared its environment.
        for (variable, marker, want) in [
            (MARKER, "m", Belongs::Ours),
            (MARKER, "other", Belongs::Foreign),
            (GUARD, "m", Belongs::Ours),
            (GUARD, "other", Belongs::Foreign),
        ] {
            let mut parent = std::process::Command::new("sh")
                .args(["-c", "env -i sleep 60 & echo $!; wait"])
                .env(variable, marker)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut pid = String::new();
            let said = parent.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut pid).unwrap();
            let pid = pid.trim().parse().unwrap();
            let seen = (belongs(parent.id(), "m"), belongs(pid, "m"));
            std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
            parent.wait().unwrap();
            assert_eq!(seen, (want, want), "{variable}={marker}");
        }
        assert_eq!(belongs(1, "m"), Belongs::Foreign);
        assert_eq!(belongs(u32::MAX - 1, "m"), Belongs::Unseen);
    }
}
