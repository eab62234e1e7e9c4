//! What the engine said of itself during a phase: queue, cache, retractions, its own TTFT.
//!
//! Figures of the engine's own making, beside the client's and never mixed with them. Counters are
//! taken as differences within the phase, so that warm-up and probes do not count.

use crate::engine::exposition::MetricName;
use crate::run::engine_sample::EngineSample;
use crate::run::phase::PhaseFacts;
use crate::stats::interval::OverTrials;
use crate::stats::quantile::mean;
use serde::{Deserialize, Serialize};

/// One phase of one trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineFigures {
    pub(crate) samples: u64,
    /// Samples without an answer.
    pub(crate) unanswered: u64,
    pub(crate) running_mean: Option<f64>,
    pub(crate) running_max: Option<f64>,
    pub(crate) waiting_mean: Option<f64>,
    pub(crate) waiting_max: Option<f64>,
    pub(crate) kv_cache_usage_max: Option<f64>,
    /// Prompt tokens that came from the cache, as a share of all.
    pub(crate) prefix_cache_hit_ratio: Option<f64>,
    pub(crate) retractions: Option<f64>,
    /// Mean of the engine's own TTFT histogram.
    pub(crate) ttft_ms: Option<f64>,
}

impl EngineFigures {
    /// Of the samples that were taken while the phase ran. Counters also need the sample before.
    pub(crate) fn of(facts: &PhaseFacts, samples: &[EngineSample]) -> Option<Self> {
        let inside: Vec<&EngineSample> = samples
            .iter()
            .filter(|sample| sample.at >= facts.started && sample.at <= facts.ended)
            .collect();
        // A short phase may lie between two samples; then only its counters are known.
        if !samples.iter().any(|sample| sample.answered) {
            return None;
        }
        let gauge = |name: MetricName| {
            inside
                .iter()
                .filter_map(|sample| sample.figures.get(&name).copied())
                .collect::<Vec<_>>()
        };
        let (running, waiting) =
            (gauge(MetricName::RequestsRunning), gauge(MetricName::RequestsWaiting));
        let grown = |name| growth(facts, samples, name);
        let ratio = |part: Option<f64>, whole: Option<f64>| {
            part.zip(whole).filter(|(_, whole)| *whole > 0.0).map(|(part, whole)| part / whole)
        };
        let hits =
            ratio(grown(MetricName::CachedTokensTotal), grown(MetricName::PromptTokensTotal));
        let ttft = ratio(grown(MetricName::TtftSecondsSum), grown(MetricName::TtftSecondsCount));
        let answered = inside.iter().filter(|sample| sample.answered).count();
        Some(Self {
            samples: count(inside.len()),
            unanswered: count(inside.len() - answered),
            running_mean: mean(&running),
            running_max: max(&running),
            waiting_mean: mean(&waiting),
            waiting_max: max(&waiting),
            kv_cache_usage_max: max(&gauge(MetricName::KvCacheUsageRatio)),
            prefix_cache_hit_ratio: hits.or_else(|| mean(&gauge(MetricName::PrefixCacheHitRatio))),
            retractions: grown(MetricName::RetractionsTotal),
            ttft_ms: ttft.map(|seconds| seconds * 1e3),
        })
    }
}

/// How much a counter grew from the last sample before the phase to the first one after it. A
/// counter appears with its first event, so one that was not there yet stood at zero.
fn growth(facts: &PhaseFacts, samples: &[EngineSample], name: MetricName) -> Option<f64> {
    let value = |sample: &EngineSample| sample.figures.get(&name).copied();
    let answered = || samples.iter().filter(|sample| sample.answered);
    let before = answered().rfind(|sample| sample.at <= facts.started)?;
    let after = answered().find(|sample| sample.at >= facts.ended);
    let last = after.or_else(|| answered().next_back())?;
    let grown = value(last)? - value(before).unwrap_or(0.0);
    // A counter that fell belongs to another process.
    (grown >= 0.0).then_some(grown)
}

fn max(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// One variant in one phase: means over trials, of maxima the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineOverTrials {
    pub(crate) unanswered: u64,
    pub(crate) samples: u64,
    pub(crate) running_mean: Option<OverTrials>,
    pub(crate) running_max: Option<f64>,
    pub(crate) waiting_mean: Option<OverTrials>,
    pub(crate) waiting_max: Option<f64>,
    pub(crate) kv_cache_usage_max: Option<f64>,
    pub(crate) prefix_cache_hit_ratio: Option<OverTrials>,
    pub(crate) retractions: Option<f64>,
    pub(crate) ttft_ms: Option<OverTrials>,
}

impl EngineOverTrials {
    /// `None` where no trial has figures.
    pub(crate) fn of<'a>(trials: impl Iterator<Item = &'a EngineFigures>) -> Option<Self> {
        let trials: Vec<&EngineFigures> = trials.collect();
        let values = |take: fn(&EngineFigures) -> Option<f64>| {
            trials.iter().filter_map(|trial| take(trial)).collect::<Vec<_>>()
        };
        let over = |take| OverTrials::of(&values(take));
        let sum =
            |take: fn(&EngineFigures) -> Option<f64>| values(take).into_iter().reduce(|a, b| a + b);
        (!trials.is_empty()).then(|| Self {
            unanswered: trials.iter().map(|trial| trial.unanswered).sum(),
            samples: trials.iter().map(|trial| trial.samples).sum(),
            running_mean: over(|trial| trial.running_mean),
            running_max: max(&values(|trial| trial.running_max)),
            waiting_mean: over(|trial| trial.waiting_mean),
            waiting_max: max(&values(|trial| trial.waiting_max)),
            kv_cache_usage_max: max(&values(|trial| trial.kv_cache_usage_max)),
            prefix_cache_hit_ratio: over(|trial| trial.prefix_cache_hit_ratio),
            retractions: sum(|trial| trial.retractions),
            ttft_ms: over(|trial| trial.ttft_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{facts, ms};
    use std::collections::BTreeMap;

    fn sample(at: i64, figures: &[(MetricName, f64)]) -> EngineSample {
        let figures: BTreeMap<MetricName, f64> = figures.iter().copied().collect();
        EngineSample { at: ms(at), took_ns: 1, answered: !figures.is_empty(), figures }
    }

    #[test]
    fn gauges_are_of_the_phase_and_counters_grow_across_it() {
        use MetricName::{
            CachedTokensTotal, PromptTokensTotal, RequestsRunning, RequestsWaiting,
            RetractionsTotal, TtftSecondsCount, TtftSecondsSum,
        };
        let facts = facts("p", 4, [1_000, 1_000, 3_000, 3_500]);
        let samples = [
            sample(
                500,
                &[(RequestsRunning, 99.0), (PromptTokensTotal, 50.0), (CachedTokensTotal, 5.0)],
            ),
            sample(1_500, &[(RequestsRunning, 2.0), (RequestsWaiting, 0.0)]),
            sample(2_500, &[]),
            sample(3_400, &[(RequestsRunning, 4.0), (RequestsWaiting, 1.0)]),
            sample(
                4_000,
                &[
                    (PromptTokensTotal, 150.0),
                    (CachedTokensTotal, 15.0),
                    (RetractionsTotal, 3.0),
                    (TtftSecondsSum, 2.0),
                    (TtftSecondsCount, 10.0),
                ],
            ),
        ];
        let got = EngineFigures::of(&facts, &samples).unwrap();
        assert_eq!((got.samples, got.unanswered), (3, 1));
        assert_eq!((got.running_mean, got.running_max), (Some(3.0), Some(4.0)));
        assert_eq!((got.waiting_mean, got.waiting_max), (Some(0.5), Some(1.0)));
        assert_eq!(got.prefix_cache_hit_ratio, Some(0.1));
        assert_eq!((got.retractions, got.ttft_ms), (Some(3.0), Some(200.0)));
        assert_eq!(got.kv_cache_usage_max, None);
    }

    #[test]
    fn a_silent_engine_has_no_figures() {
        let facts = facts("p", 4, [1_000, 1_000, 3_000, 3_500]);
        assert_eq!(EngineFigures::of(&facts, &[sample(1_500, &[])]), None);
        assert_eq!(EngineFigures::of(&facts, &[]), None);
        assert_eq!(EngineOverTrials::of(std::iter::empty()), None);
    }

    #[test]
    fn a_counter_that_fell_is_no_growth() {
        let facts = facts("p", 4, [1_000, 1_000, 3_000, 3_500]);
        let at = |ms, value| sample(ms, &[(MetricName::RetractionsTotal, value)]);
        let got = EngineFigures::of(&facts, &[at(900, 7.0), at(2_000, 8.0), at(3_600, 1.0)]);
        assert_eq!(got.unwrap().retractions, None);
    }
}
