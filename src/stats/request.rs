//! What one request's times mean.
//!
//! Only requests that came whole have latencies: the time of a failure is not an answer's time.
//! Everything is measured between stamps of the record; no token count is assumed.
//!
//! Invariant: a time that is negative, or whose ends are not both known, is absent.

use crate::run::record::{Chunk, RequestOutcome, RequestRecord};
use crate::units::{MonoNs, count_f64, ns_to_ms};

/// One whole request's metrics, as far as its record gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RequestMetrics {
    pub(crate) ttft_ms: Option<f64>,
    /// The earliest that the first text can have been there.
    pub(crate) ttft_lower_bound_ms: Option<f64>,
    pub(crate) first_text_censored: bool,
    pub(crate) ttft_from_scheduled_ms: Option<f64>,
    pub(crate) first_chunk_ms: Option<f64>,
    /// Absent for a single token: there is no time between tokens.
    pub(crate) tpot_ms: Option<f64>,
    pub(crate) e2el_ms: Option<f64>,
    pub(crate) e2el_from_scheduled_ms: Option<f64>,
    pub(crate) output_tokens_per_s: Option<f64>,
}

impl RequestMetrics {
    /// `None` for a request that did not come whole.
    pub(crate) fn of(record: &RequestRecord) -> Option<Self> {
        if record.outcome != RequestOutcome::Ok {
            return None;
        }
        let first_text = text_chunks(record).first();
        let last = record.chunks.last().map(|chunk| chunk.at);
        let first_text_at = first_text.map(|chunk| chunk.at);
        let ttft_ms = span_ms(record.sent, first_text_at);
        let e2el_ms = span_ms(record.sent, last);
        let tokens = record.output_tokens_reported;
        Some(Self {
            ttft_ms,
            ttft_lower_bound_ms: ttft_ms.and(first_text).map(|chunk| lower_bound(record, chunk)),
            first_text_censored: first_text.is_some_and(|chunk| chunk.is_censored()),
            ttft_from_scheduled_ms: span_ms(Some(record.scheduled), first_text_at),
            first_chunk_ms: span_ms(record.sent, record.chunks.first().map(|chunk| chunk.at)),
            tpot_ms: tpot_ms(ttft_ms, e2el_ms, tokens),
            e2el_ms,
            e2el_from_scheduled_ms: span_ms(Some(record.scheduled), last),
            output_tokens_per_s: speed(e2el_ms, tokens),
        })
    }
}

/// The time between two neighbouring chunks, with what it can have been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Gap {
    pub(crate) ms: f64,
    pub(crate) lower_bound_ms: f64,
    pub(crate) upper_bound_ms: f64,
    pub(crate) censored: bool,
}

/// The gaps between chunks from the first text on. A chunk is not a token.
pub(crate) fn gaps(record: &RequestRecord) -> impl Iterator<Item = Gap> {
    text_chunks(record).windows(2).filter_map(|pair| match pair {
        [before, after] => Some(Gap {
            ms: ns_to_ms(after.at.since_ns(before.at).max(0)),
            lower_bound_ms: ns_to_ms(after.earliest.since_ns(before.at).max(0)),
            upper_bound_ms: ns_to_ms(after.at.since_ns(before.earliest).max(0)),
            censored: before.is_censored() || after.is_censored(),
        }),
        _ => None,
    })
}

/// The chunks from the first one with text on; empty where no text came.
pub(crate) fn text_chunks(record: &RequestRecord) -> &[Chunk] {
    let first = record.first_text_chunk.and_then(|index| usize::try_from(index).ok());
    first.and_then(|first| record.chunks.get(first..)).unwrap_or(&[])
}

/// No answer comes before its question: the bound is never below zero.
fn lower_bound(record: &RequestRecord, chunk: &Chunk) -> f64 {
    record.sent.map_or(0.0, |sent| ns_to_ms(chunk.earliest.since_ns(sent).max(0)))
}

fn span_ms(from: Option<MonoNs>, to: Option<MonoNs>) -> Option<f64> {
    let nanoseconds = to?.since_ns(from?);
    (nanoseconds >= 0).then(|| ns_to_ms(nanoseconds))
}

fn tpot_ms(ttft: Option<f64>, e2el: Option<f64>, tokens: Option<u32>) -> Option<f64> {
    let steps = tokens?.checked_sub(1).filter(|steps| *steps > 0)?;
    Some((e2el? - ttft?) / f64::from(steps))
}

fn speed(e2el_ms: Option<f64>, tokens: Option<u32>) -> Option<f64> {
    let seconds = e2el_ms? / 1e3;
    let tokens = count_f64(u64::from(tokens?));
    (seconds > 0.0).then(|| tokens / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{ms, record};

    #[test]
    fn a_request_worked_by_hand() {
        // Due at 90, sent at 100; a role chunk at 120, text from 150 on, the last at 350 ms.
        let mut request = record(0, ms(100), &[120, 150, 250, 350], 3);
        request.scheduled = ms(90);
        request.first_text_chunk = Some(1);
        let got = RequestMetrics::of(&request).unwrap();
        assert_eq!(got.first_chunk_ms, Some(20.0));
        assert_eq!(got.ttft_ms, Some(50.0));
        assert_eq!(got.ttft_lower_bound_ms, Some(50.0));
        assert_eq!(got.ttft_from_scheduled_ms, Some(60.0));
        assert_eq!(got.e2el_ms, Some(250.0));
        assert_eq!(got.e2el_from_scheduled_ms, Some(260.0));
        assert_eq!(got.tpot_ms, Some(100.0)); // (250 - 50) / (3 - 1)
        assert_eq!(got.output_tokens_per_s, Some(12.0)); // 3 / 0.25 s
        let gaps: Vec<f64> = gaps(&request).map(|gap| gap.ms).collect();
        assert_eq!(gaps, [100.0, 100.0]);
    }

    #[test]
    fn a_censored_chunk_bounds_its_neighbours() {
        let mut request = record(0, ms(0), &[50, 80, 110], 3);
        request.chunks[1].earliest = ms(60);
        let got: Vec<Gap> = gaps(&request).collect();
        let gap = |ms, lower_bound_ms, upper_bound_ms| Gap {
            ms,
            lower_bound_ms,
            upper_bound_ms,
            censored: true,
        };
        assert_eq!(got, [gap(30.0, 10.0, 30.0), gap(30.0, 30.0, 50.0)]);
        request.chunks[0].earliest = ms(20);
        let metrics = RequestMetrics::of(&request).unwrap();
        assert!(metrics.first_text_censored);
        assert_eq!((metrics.ttft_ms, metrics.ttft_lower_bound_ms), (Some(50.0), Some(20.0)));
    }

    #[test]
    fn what_cannot_be_known_is_absent() {
        let one_token = record(0, ms(0), &[50], 1);
        let got = RequestMetrics::of(&one_token).unwrap();
        assert_eq!((got.tpot_ms, got.ttft_ms), (None, Some(50.0)));

        let mut no_usage = record(0, ms(0), &[50, 60], 2);
        no_usage.output_tokens_reported = None;
        let got = RequestMetrics::of(&no_usage).unwrap();
        assert_eq!((got.tpot_ms, got.output_tokens_per_s), (None, None));

        let mut no_text = record(0, ms(0), &[50], 2);
        no_text.first_text_chunk = None;
        let got = RequestMetrics::of(&no_text).unwrap();
        assert_eq!((got.ttft_ms, got.e2el_ms, got.tpot_ms), (None, Some(50.0), None));

        let before_it_was_sent = record(0, ms(60), &[50], 2);
        assert_eq!(RequestMetrics::of(&before_it_was_sent).unwrap().ttft_ms, None);
    }

    #[test]
    fn only_whole_requests_have_latencies() {
        for outcome in RequestOutcome::ALL {
            let mut request = record(0, ms(0), &[50], 1);
            request.outcome = outcome;
            let whole = outcome == RequestOutcome::Ok;
            assert_eq!(RequestMetrics::of(&request).is_some(), whole, "{outcome:?}");
        }
    }
}
