//! Puts the loop before what competes with it for the CPUs, where it may and has to. Edge.
//!
//! A loop that waits for a CPU reads late. The kernel's stamps keep the times of what it finds then,
//! but two segments that the kernel has merged have one stamp. On CPUs that it shares with the engine
//! alone it stays like any other: what goes before the engine there makes the engine slower.

use crate::units::MonoNs;
use rustix::process::{getpriority_process, setpriority_process};
use std::time::Duration;

/// As far before others as a desktop's sound server is, and no real-time class: it can starve nobody.
const WANTED: i32 = -10;
/// Looked at no more often, and over no less.
const WINDOW: Duration = Duration::from_millis(10);
/// More waiting for a CPU than this share of the time means that others want them.
const STARVED: i64 = 5;

/// One thread's place among others.
#[derive(Debug, Default)]
pub(super) struct Priority {
    last: Option<(MonoNs, i64)>,
    raised: bool,
}

impl Priority {
    /// The loop is late. Raises the calling thread's priority if that comes from waiting for a CPU
    /// and it is allowed: with `CAP_SYS_NICE`, or a limit of that resource (`RLIMIT_NICE`).
    pub(super) fn late(&mut self, now: MonoNs) {
        if self.raised || self.last.is_some_and(|(at, _)| now.since(at) < WINDOW) {
            return;
        }
        let Some(waited_ns) = waited_ns() else { return };
        let before = self.last.replace((now, waited_ns));
        if before.is_some_and(|(at, before)| is_starved(waited_ns - before, now.since_ns(at))) {
            // Once: where it is refused, it is refused for good.
            self.raised = true;
            setpriority_process(None, WANTED).ok();
        }
    }

    /// The loop is under way: from here its waiting counts.
    pub(super) fn begin(&mut self, now: MonoNs) {
        self.last = waited_ns().map(|waited_ns| (now, waited_ns));
    }
}

/// Of the calling thread, below zero where it was put before others.
pub(super) fn niceness() -> Option<i32> {
    getpriority_process(None).ok()
}

fn is_starved(waited_ns: i64, passed_ns: i64) -> bool {
    waited_ns.saturating_mul(STARVED) > passed_ns
}

/// How long the calling thread could have run and did not (the second number of `schedstat`).
fn waited_ns() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_time_is_the_border() {
        assert!(!is_starved(2_000_000, 10_000_000));
        assert!(is_starved(2_000_001, 10_000_000));
        assert!(!is_starved(0, 0));
    }

    #[test]
    fn the_kernel_tells_the_waiting_of_a_thread() {
        assert!(waited_ns().is_some_and(|waited| waited >= 0));
        assert!(niceness().is_some_and(|nice| (-20..20).contains(&nice)));
    }
}
