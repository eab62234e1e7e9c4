//! The clocks of the simulated engine, and the one way it sleeps.
//!
//! Sleeping is to an absolute time: a late wake-up never delays the next one.

use crate::units::MonoNs;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

pub(crate) fn now() -> MonoNs {
    MonoNs::new(nanoseconds(ClockId::CLOCK_MONOTONIC))
}

/// Seconds since 1970, for the `created` field.
pub(crate) fn unix_seconds() -> i64 {
    nanoseconds(ClockId::CLOCK_REALTIME) / 1_000_000_000
}

/// Returns at once when `at` is past.
pub(crate) fn sleep_until(at: MonoNs) {
    let at = TimeSpec::new(at.get() / 1_000_000_000, at.get() % 1_000_000_000);
    let flags = ClockNanosleepFlags::TIMER_ABSTIME;
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &at) == Err(Errno::EINTR) {}
}

fn nanoseconds(clock: ClockId) -> i64 {
    // These two clocks exist on every Linux; without one nothing here could work.
    clock_gettime(clock).map_or(0, |now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}
