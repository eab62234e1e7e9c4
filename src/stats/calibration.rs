//! What the load generator reported of a server whose times are known, against these times. Pure.

use crate::run::calibration::Point;
use crate::run::record::RequestOutcome;
use crate::stats::cell::Cell;
use crate::stats::data::PhaseData;
use crate::stats::metric::Metric;
use crate::stats::phase::PhaseTrial;
use crate::stats::quantile::Distribution;
use crate::stats::summary::Summary;
use crate::units::ns_to_ms;

/// A prefill longer than this only makes a calibration longer: it adds nothing to the load.
const MOST_TTFT_MS: f64 = 200.0;
/// Few users take long for the requests of a p99; after so long there are enough.
const LONG_ENOUGH_MS: f64 = 30_000.0;
const REQUESTS_OF_A_P99: u32 = 300;

/// How many streams at once, and how fast each comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) users: u32,
    pub(crate) ttft_ms: f64,
    pub(crate) gap_ms: f64,
}

impl Pace {
    /// As many requests as it takes: two for each user, and for a p99 unless that takes too long.
    pub(crate) fn requests(&self, tokens: u32) -> u32 {
        let each_ms = self.ttft_ms + self.gap_ms * f64::from(tokens);
        let for_p99 = (1..=REQUESTS_OF_A_P99)
            .take_while(|n| f64::from(*n) * each_ms <= LONG_ENOUGH_MS * f64::from(self.users))
            .last();
        for_p99.unwrap_or(1).max(self.users.saturating_mul(2))
    }

    fn is_like(&self, other: &Self) -> bool {
        self.users == other.users && (self.gap_ms / other.gap_ms - 1.0).abs() < 0.1
    }
}

/// The concurrency and pace of each measured phase, those alike once.
pub(crate) fn paces(summary: &Summary) -> Vec<Pace> {
    let pace = |cell: &Cell| {
        let median = |metric| cell.latency.get(&metric).map(|sample| (sample.mean, sample.p50));
        let (gap, _) = median(Metric::Tpot).filter(|(gap, _)| *gap > 0.1)?;
        let (mean, p50) = median(Metric::Ttft)?;
        let ttft_ms = p50.unwrap_or(mean).clamp(1.0, MOST_TTFT_MS);
        Some(Pace { users: cell.users, ttft_ms, gap_ms: gap })
    };
    let mut paces: Vec<Pace> = Vec::new();
    for pace in summary.cells.iter().filter_map(pace) {
        if !paces.iter().any(|other| other.is_like(&pace)) {
            paces.push(pace);
        }
    }
    paces
}

/// What was reported, less what was true.
pub(crate) fn point(pace: &Pace, data: &PhaseData, ttft_ns: Vec<i64>, gaps_ns: Vec<i64>) -> Point {
    let truth =
        |ns: Vec<i64>| Distribution::of(&mut ns.into_iter().map(ns_to_ms).collect::<Vec<_>>());
    let (ttft, gaps) = (truth(ttft_ns), truth(gaps_ns));
    let (trial, _) = PhaseTrial::of(1, 1, data);
    let error = |metric, truth: &Option<Distribution>, pick: fn(&Distribution) -> Option<f64>| {
        let reported = trial.latency.get(&metric).and_then(pick);
        Some(reported? - truth.as_ref().and_then(pick)?)
    };
    let ok = data.records.iter().filter(|record| record.outcome == RequestOutcome::Ok).count();
    let whole = trial.whole.as_ref();
    Point {
        users: pace.users,
        ttft_ms: pace.ttft_ms,
        gap_ms: pace.gap_ms,
        tokens_per_s: whole.and_then(|window| window.output_tokens_per_s).unwrap_or(0.0),
        requests: data.records.len() as u64,
        failed: (data.records.len() - ok) as u64,
        ttft_p50_error_ms: error(Metric::Ttft, &ttft, |sample| sample.p50),
        ttft_p99_error_ms: error(Metric::Ttft, &ttft, |sample| sample.p99),
        itl_p99_error_ms: error(Metric::Itl, &gaps, |sample| sample.p99),
        bounds_only_share: trial.censoring.gap_share(),
        cpu_share: trial.client.cpu_share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{facts, ms, record, run};
    use crate::stats::summary::summarise;

    #[test]
    fn a_runs_paces_are_those_of_its_phases_each_once() {
        let paces = paces(&summarise(&run()));
        let users: Vec<u32> = paces.iter().map(|pace| pace.users).collect();
        assert!(users.contains(&10) && users.contains(&50), "{paces:?}");
        assert!(paces.iter().all(|pace| pace.gap_ms > 5.0 && pace.ttft_ms <= 200.0), "{paces:?}");
    }

    #[test]
    fn requests_are_enough_for_a_p99_unless_that_takes_too_long() {
        let pace = |users, gap_ms| Pace { users, ttft_ms: 10.0, gap_ms };
        for (users, gap_ms, want) in [(10, 1.0, 300), (1000, 20.0, 2000), (1, 99.0, 4), (1, 1e6, 2)]
        {
            assert_eq!(pace(users, gap_ms).requests(64), want, "{users} users, {gap_ms} ms");
        }
    }

    #[test]
    fn an_error_is_what_was_reported_less_what_was_true() {
        let facts = facts("calibration", 1, [0, 0, 900, 1000]);
        let records = vec![record(0, ms(0), &[100, 120, 140], 3); 5];
        let pace = Pace { users: 1, ttft_ms: 99.0, gap_ms: 20.0 };
        let data = PhaseData::new(facts, records);
        let point = point(&pace, &data, vec![99_000_000; 5], vec![20_000_000; 10]);
        assert_eq!((point.ttft_p50_error_ms, point.ttft_p99_error_ms), (Some(1.0), None));
        assert_eq!((point.requests, point.failed, point.bounds_only_share), (5, 0, Some(0.0)));
    }
}
