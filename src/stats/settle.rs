//! When a phase has settled: MSER-5 (White 1997) over its requests.
//!
//! The requests' latencies, in the order of their sending, are averaged by fives; the truncation
//! is chosen that leaves the mean of the rest with the least standard error. A truncation beyond
//! half of the data says that the phase never settled. Pure.
//!
//! Invariant: what is cut off lies at the start, and is never more than half.

use crate::run::phase::PhaseFacts;
use crate::run::record::RequestRecord;
use crate::stats::request::RequestMetrics;
use crate::stats::span::{self, Span};
use crate::units::{MonoNs, count_f64};
use serde::{Deserialize, Serialize};

const BATCH: usize = 5;
/// Fewer batches say nothing.
const LEAST: usize = 10;
/// With the standard error of the rest lower by less than this, nothing is cut off.
const WORTH: f64 = 0.9;

/// The parts of a phase, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// Until every user had a request under way, or an open loop as many in flight as later.
    pub(crate) ramp_s: f64,
    /// From then until latencies had settled; the steady window of throughput holds this, too.
    pub(crate) settling_s: f64,
    pub(crate) steady_s: f64,
    /// From the end of sending to the end of the last stream.
    pub(crate) drain_s: f64,
    /// Absent where there were too few requests to say.
    pub(crate) settled: Option<bool>,
    /// Of an open loop: whether the number in flight came to its level in the first half.
    #[serde(default)]
    pub(crate) level: Option<bool>,
}

/// When the steady part begins, and whether latencies have settled there.
fn steady_from(span: Span, records: &[RequestRecord]) -> (MonoNs, Option<bool>) {
    let mut sent: Vec<(MonoNs, f64)> = records
        .iter()
        .filter(|record| record.sent.is_some_and(|at| span.from <= at && at < span.to))
        .filter_map(|record| Some((record.sent?, RequestMetrics::of(record)?.e2el_ms?)))
        .collect();
    sent.sort_unstable_by_key(|(at, _)| *at);
    let values: Vec<f64> = sent.iter().map(|(_, value)| *value).collect();
    let began = span.from;
    match truncation(&values) {
        // A load that never came to its level has not settled, whatever latencies say.
        _ if span.level == Some(false) => (began, Some(false)),
        Truncation::TooFew => (began, None),
        Truncation::Never => (began, Some(false)),
        Truncation::At(first) => {
            let at = sent.get(first).map_or(began, |(at, _)| if first == 0 { began } else { *at });
            (at.min(span.to), Some(true))
        }
    }
}

pub(crate) fn parts(facts: &PhaseFacts, records: &[RequestRecord]) -> Option<Parts> {
    let span = span::steady(facts, records)?;
    let (from, settled) = steady_from(span, records);
    let seconds = |from: MonoNs, to: MonoNs| to.since(from).as_secs_f64();
    Some(Parts {
        ramp_s: seconds(facts.started, span.from),
        settling_s: seconds(span.from, from),
        steady_s: seconds(from, span.to),
        drain_s: seconds(facts.stopped_at, facts.ended),
        settled,
        level: span.level,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truncation {
    TooFew,
    /// The first value that is kept.
    At(usize),
    Never,
}

fn truncation(values: &[f64]) -> Truncation {
    let mean = |batch: &[f64]| batch.iter().sum::<f64>() / count_f64(BATCH as u64);
    let batches: Vec<f64> = values.chunks_exact(BATCH).map(mean).collect();
    if batches.len() < LEAST {
        return Truncation::TooFew;
    }
    // From the end, so that each step adds one batch to the running sums.
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut errors: Vec<f64> = Vec::with_capacity(batches.len());
    for (kept, value) in (1_u64..).zip(batches.iter().rev()) {
        sum += value;
        squares += value * value;
        let n = count_f64(kept);
        errors.push((squares - sum * sum / n).max(0.0) / (n * n));
    }
    errors.reverse();
    let all = errors.first().copied().unwrap_or(0.0);
    // The last few batches are too few to have an error worth the name.
    let looked_at = errors.len().saturating_sub(LEAST / 2);
    let candidates = errors.iter().take(looked_at).enumerate();
    let best = candidates.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at);
    let error = errors.get(best).copied().unwrap_or(all);
    if best == 0 || error > WORTH * all {
        Truncation::At(0)
    } else if best > batches.len() / 2 {
        Truncation::Never
    } else {
        Truncation::At(best * BATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use crate::stats::fixture::{facts, ms, record};

    fn noise(n: usize, seed: u64, level: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut stream = Seed::new(seed).stream();
        (0..n).map(|i| level(i) + stream.unit()).collect()
    }

    #[test]
    fn steady_noise_is_left_whole_and_a_start_is_cut_off() {
        for seed in 0..20 {
            assert_eq!(truncation(&noise(400, seed, |_| 100.0)), Truncation::At(0), "seed {seed}");
            let warm = truncation(&noise(400, seed, |i| if i < 60 { 150.0 } else { 100.0 }));
            assert!((60..100).any(|n| warm == Truncation::At(n)), "seed {seed}: {warm:?}");
            let late = truncation(&noise(400, seed, |i| if i < 300 { 500.0 } else { 100.0 }));
            assert_eq!(late, Truncation::Never, "seed {seed}");
        }
        assert_eq!(truncation(&[1.0; 49]), Truncation::TooFew);
        assert_eq!(truncation(&[]), Truncation::TooFew);
    }

    #[test]
    fn the_parts_of_a_phase_worked_by_hand() {
        // Full at 1 s; slow until 4 s, then fast until sending stops at 20 s; drained at 21 s.
        let facts = facts("p", 1, [0, 1_000, 20_000, 21_000]);
        let records: Vec<RequestRecord> = (0..190)
            .map(|n: i64| {
                let sent = 1_000 + n * 100;
                let took = if sent < 4_000 { 400 } else { 90 };
                record(u32::try_from(n).unwrap(), ms(sent), &[sent + 10, sent + took], 2)
            })
            .collect();
        let got = parts(&facts, &records).unwrap();
        assert_eq!((got.ramp_s, got.settling_s, got.steady_s, got.drain_s), (1.0, 3.0, 16.0, 1.0));
        assert_eq!(got.settled, Some(true));
        let few = parts(&facts, &records[..20]).unwrap();
        assert_eq!((few.settling_s, few.settled), (0.0, None));
    }
}
