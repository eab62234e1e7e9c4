//! Where each thread of an engine stands in the kernel, as text.

use super::tree::Process;
use std::fmt::Write as _;
use std::fs;

const THREADS: usize = 64;

/// What may not be read is left out.
pub(crate) fn kernel_stacks(processes: &[Process]) -> String {
    let mut text = String::new();
    for process in processes {
        // Writing to a String cannot fail.
        writeln!(text, "== pid {} ({}), state {}", process.pid, process.command, process.state)
            .ok();
        let threads = fs::read_dir(format!("/proc/{}/task", process.pid));
        for thread in threads.into_iter().flatten().flatten().take(THREADS) {
            let read =
                |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let (name, waits_in) = (read("comm"), read("wchan"));
            writeln!(
                text,
                "  thread {} ({}) in {}",
                thread.file_name().display(),
                name.trim(),
                waits_in.trim()
            )
            .ok();
            for line in read("stack").lines() {
                writeln!(text, "      {line}").ok();
            }
        }
    }
    text
}
