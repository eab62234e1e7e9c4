//! Puts the loop before what competes with it for the CPUs, where it may. Edge.
//!
//! A loop that waits for a CPU reads late. The kernel's stamps keep the times of what it finds then,
//! but two segments that the kernel has merged have one stamp. The loop works for a part of the
//! time only, so that what it displaces is displaced for moments.

use rustix::process::{getpriority_process, setpriority_process};

/// As far before others as a desktop's sound server is, and no real-time class: it can starve nobody.
const WANTED: i32 = -10;

/// Raises the calling thread's priority, if that is allowed: with `CAP_SYS_NICE`, or a limit of that
/// resource (`RLIMIT_NICE`). Its niceness afterwards; `None` where that cannot be read.
pub(super) fn raise() -> Option<i32> {
    let is = getpriority_process(None).ok()?;
    if is <= WANTED || setpriority_process(None, WANTED).is_err() {
        return Some(is);
    }
    Some(WANTED)
}
