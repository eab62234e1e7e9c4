//! The times of a phase's requests, metric by metric. Pure.
//!
//! Invariant: only requests that came whole have times.

use crate::run::record::RequestRecord;
use crate::stats::metric::{Censoring, Metric, Samples};
use crate::stats::request::{RequestMetrics, gaps, text_chunks};

pub(super) fn sample(records: &[RequestRecord]) -> (Samples, Censoring) {
    let mut samples = Samples::default();
    let mut censoring = Censoring::default();
    for record in records {
        let Some(metrics) = RequestMetrics::of(record) else { continue };
        samples.add(Metric::Ttft, metrics.ttft_ms);
        samples.add(Metric::TtftLowerBound, metrics.ttft_lower_bound_ms);
        samples.add(Metric::TtftFromScheduled, metrics.ttft_from_scheduled_ms);
        samples.add(Metric::FirstChunk, metrics.first_chunk_ms);
        samples.add(Metric::Tpot, metrics.tpot_ms);
        samples.add(Metric::E2el, metrics.e2el_ms);
        samples.add(Metric::E2elFromScheduled, metrics.e2el_from_scheduled_ms);
        samples.add(Metric::UserSpeed, metrics.output_tokens_per_s);
        censoring.first_texts += u64::from(metrics.first_text_censored);
        censoring.first_texts_of += u64::from(metrics.ttft_ms.is_some());
        for gap in gaps(record) {
            samples.add(Metric::Itl, Some(gap.ms));
            samples.add(Metric::ItlLowerBound, Some(gap.lower_bound_ms));
            samples.add(Metric::ItlUpperBound, Some(gap.upper_bound_ms));
            censoring.gaps += u64::from(gap.censored);
            censoring.gaps_of += 1;
        }
        censoring.gaps_at_end += u64::from(only_the_end_is_bounded(record));
    }
    (samples, censoring)
}

/// The last chunk has only bounds and the one before it a stamp of its own.
fn only_the_end_is_bounded(record: &RequestRecord) -> bool {
    match text_chunks(record) {
        [.., before, last] => last.is_censored() && !before.is_censored(),
        [] | [_] => false,
    }
}
