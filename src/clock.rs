//! Where the clocks enter: everything else takes the time as an argument. Edge.

use crate::units::{ClockAnchor, MonoNs};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn read(clock: ClockId) -> i64 {
    // Linux always has these two clocks; 0 would show at once in any test.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

pub(crate) fn now() -> MonoNs {
    MonoNs::new(read(ClockId::CLOCK_MONOTONIC))
}

/// The two clocks at one instant: the reading with the shortest gap of a few.
pub(crate) fn anchor() -> ClockAnchor {
    let sample = |_| {
        let before = read(ClockId::CLOCK_MONOTONIC);
        let realtime_ns = read(ClockId::CLOCK_REALTIME);
        let after = read(ClockId::CLOCK_MONOTONIC);
        (after - before, ClockAnchor { mono_ns: before + (after - before) / 2, realtime_ns })
    };
    (0..5)
        .map(sample)
        .min_by_key(|(gap, _)| *gap)
        .map_or(ClockAnchor { mono_ns: 0, realtime_ns: 0 }, |(_, anchor)| anchor)
}

/// Wall time now, RFC 3339 in UTC with milliseconds.
pub(crate) fn wall_time() -> String {
    wall_time_of(read(ClockId::CLOCK_REALTIME))
}

/// The wall clock, to be compared with the times of files.
pub(crate) fn system_time() -> SystemTime {
    let since = u64::try_from(read(ClockId::CLOCK_REALTIME)).unwrap_or(0);
    UNIX_EPOCH + Duration::from_nanos(since)
}

/// Wall time of another instant.
pub(crate) fn wall_time_of(realtime_ns: i64) -> String {
    let since = Duration::from_nanos(u64::try_from(realtime_ns).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// From one wall time to a later one, both as `wall_time` writes them. `None` if they are not, or the
/// clock was set back between them.
pub(crate) fn between(earlier: &str, later: &str) -> Option<Duration> {
    let [earlier, later] = [earlier, later].map(humantime::parse_rfc3339);
    later.ok()?.duration_since(earlier.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_between_wall_times_is_never_negative() {
        let (early, late) = ("2026-11-25T19:00:00.000Z", "2026-11-25T19:01:00.500Z");
        assert_eq!(between(early, late), Some(Duration::from_millis(60_500)));
        assert_eq!(between(late, early), None);
        assert_eq!(between("", late), None);
    }
}
