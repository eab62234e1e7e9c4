//! Which requests kept to their limits. Pure.
//!
//! Invariant: what did not come whole kept to nothing, and a time that is not known is not within a
//! limit; only TPOT does not exist for a single token, and is then not missed.

use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::run::slo::Slo;
use crate::stats::request::RequestMetrics;
use crate::units::{PerSecond, count_f64};

/// The time is known and over its limit.
pub(crate) fn is_over(limit: Option<f64>, ms: Option<f64>) -> bool {
    limit.zip(ms).is_some_and(|(limit, ms)| ms > limit)
}

/// All limits were met.
pub(crate) fn met(slo: &Slo, metrics: &RequestMetrics) -> bool {
    let within = |limit: Option<f64>, ms: Option<f64>| {
        limit.is_none_or(|limit| ms.is_some_and(|ms| ms <= limit))
    };
    within(slo.ttft_ms, metrics.ttft_ms)
        && !is_over(slo.tpot_ms, metrics.tpot_ms)
        && within(slo.e2el_ms, metrics.e2el_ms)
}

/// Requests within all limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goodput {
    pub(crate) sent: u64,
    pub(crate) met: u64,
    /// Of the whole phase; absent if that is no time.
    pub(crate) per_s: Option<f64>,
}

pub(crate) fn goodput(slo: &Slo, facts: &PhaseFacts, records: &[RequestRecord]) -> Goodput {
    let whole = records.iter().filter_map(RequestMetrics::of);
    let met = whole.filter(|metrics| met(slo, metrics)).count() as u64;
    let duration = facts.ended.since(facts.started);
    let per_s = PerSecond::over(count_f64(met), duration).map(PerSecond::get);
    Goodput { sent: records.len() as u64, met, per_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_met_at_the_limit_and_not_by_what_is_unknown() {
        let metrics = |ttft_ms, tpot_ms, e2el_ms| RequestMetrics {
            ttft_ms,
            tpot_ms,
            e2el_ms,
            ..RequestMetrics::default()
        };
        let slo = Slo { ttft_ms: Some(100.0), tpot_ms: Some(10.0), e2el_ms: Some(500.0) };
        for (ttft, tpot, e2el, want) in [
            (Some(100.0), Some(10.0), Some(500.0), true),
            (Some(100.1), Some(10.0), Some(500.0), false),
            (Some(100.0), Some(10.1), Some(500.0), false),
            (Some(100.0), Some(10.0), Some(500.1), false),
            (Some(100.0), None, Some(100.0), true),
            (None, Some(10.0), Some(500.0), false),
            (Some(100.0), Some(10.0), None, false),
        ] {
            assert_eq!(met(&slo, &metrics(ttft, tpot, e2el)), want, "{ttft:?} {tpot:?} {e2el:?}");
        }
        assert!(met(&Slo::default(), &metrics(None, None, None)));
    }
}
