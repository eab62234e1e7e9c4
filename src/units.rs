//! Numbers whose unit is their type.
//!
//! Pure. Absent is `None`, never zero: a rate over no time does not exist.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An instant on `CLOCK_MONOTONIC`, in nanoseconds since boot.
///
/// Every stored time is one of these; a run's `ClockAnchor` ties them to wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct MonoNs(i64);

impl MonoNs {
    pub(crate) const fn new(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    pub(crate) const fn get(self) -> i64 {
        self.0
    }

    /// Signed nanoseconds from `earlier` to `self`.
    pub(crate) const fn since_ns(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The instant `span` after this one.
    pub(crate) fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// A span in whole nanoseconds, as the load process is told it.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// One instant read on two clocks: what ties `MonoNs` to wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClockAnchor {
    pub(crate) mono_ns: i64,
    /// `CLOCK_REALTIME`, nanoseconds since 1970.
    pub(crate) realtime_ns: i64,
}

/// Something per second.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PerSecond(f64);

impl PerSecond {
    /// `None` for an empty window.
    pub(crate) fn over(amount: f64, window: Duration) -> Option<Self> {
        (!window.is_zero()).then(|| Self(amount / window.as_secs_f64()))
    }

    pub(crate) const fn get(self) -> f64 {
        self.0
    }
}

/// The one way to turn a signed nanosecond count into milliseconds.
#[expect(clippy::cast_precision_loss, reason = "spans under 104 days are exact in f64")]
pub(crate) fn ns_to_ms(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// A count as a float, for arithmetic.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub(crate) fn count_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_over_no_time_is_absent() {
        assert_eq!(PerSecond::over(5.0, Duration::ZERO), None);
        assert_eq!(PerSecond::over(5.0, Duration::from_secs(2)).map(PerSecond::get), Some(2.5));
    }

    #[test]
    fn time_since_a_later_instant_is_zero() {
        assert_eq!(MonoNs::new(1).since(MonoNs::new(2)), Duration::ZERO);
        assert_eq!(MonoNs::new(1).since_ns(MonoNs::new(2)), -1);
    }
}
