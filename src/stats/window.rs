//! Throughput within a window of one phase.
//!
//! Two windows, never mixed: *whole*, from the first request's due time to the end of the last
//! stream, ramp and drain included; and *steady*, while concurrency is at its level (`span`): from the
//! moment every user had a request under way until sending stopped. Whether latencies had settled by then is checked (`settle`) and said,
//! and cuts nothing off: a stall at the start must not vanish. In the steady window a token counts where its chunk arrived, so
//! that requests which cross an edge count by the part inside.
//!
//! Only whole requests give tokens. Invariant: a rate that lacks more than 1 % of its requests'
//! token counts is absent; with less missing it is a lower bound (and marked as such elsewhere).

use crate::run::phase::PhaseFacts;
use crate::run::record::{Chunk, RequestOutcome, RequestRecord};
use crate::stats::request::text_chunks;
use crate::stats::span::{self, Span};
use crate::units::{MonoNs, PerSecond, count_f64};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The share of requests without a token count above which sums of tokens are absent.
pub(crate) const MISSING_USAGE_LIMIT: f64 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) duration_s: f64,
    /// Whole requests that ended inside.
    pub(crate) requests: u64,
    pub(crate) input_tokens: Option<f64>,
    pub(crate) output_tokens: Option<f64>,
    pub(crate) requests_per_s: f64,
    pub(crate) output_tokens_per_s: Option<f64>,
    /// Input and output together.
    pub(crate) total_tokens_per_s: Option<f64>,
}

/// From the first request's due time to the end of the last stream. `None` if that is no time.
pub(crate) fn whole(facts: &PhaseFacts, records: &[RequestRecord]) -> Option<Window> {
    let mut input = TokenSum::default();
    let mut output = TokenSum::default();
    let mut requests = 0;
    for record in whole_requests(records) {
        requests += 1;
        input.add(record.prompt_tokens_reported, 1.0);
        output.add(record.output_tokens_reported, 1.0);
    }
    Window::new(facts.ended.since(facts.started), requests, input.value(), output.value())
}

/// While concurrency was at its level. `None` if it never was.
pub(crate) fn steady(facts: &PhaseFacts, records: &[RequestRecord]) -> Option<Window> {
    let Span { from, to, .. } = span::steady(facts, records)?;
    let inside = |at: MonoNs| from <= at && at < to;
    let mut input = TokenSum::default();
    let mut output = TokenSum::default();
    let mut requests = 0;
    for record in whole_requests(records) {
        requests += u64::from(inside(record.end));
        let prefill_ended = text_chunks(record).first().map_or(record.end, |chunk| chunk.at);
        input.add(record.prompt_tokens_reported, if inside(prefill_ended) { 1.0 } else { 0.0 });
        output.add(record.output_tokens_reported, share_inside(record, inside));
    }
    Window::new(to.since(from), requests, input.value(), output.value())
}

impl Window {
    fn new(
        duration: Duration,
        requests: u64,
        input: Option<f64>,
        output: Option<f64>,
    ) -> Option<Self> {
        let rate = |amount: f64| PerSecond::over(amount, duration).map(PerSecond::get);
        Some(Self {
            duration_s: duration.as_secs_f64(),
            requests,
            input_tokens: input,
            output_tokens: output,
            requests_per_s: rate(count_f64(requests))?,
            output_tokens_per_s: output.and_then(rate),
            total_tokens_per_s: input.zip(output).and_then(|(input, output)| rate(input + output)),
        })
    }
}

fn whole_requests(records: &[RequestRecord]) -> impl Iterator<Item = &RequestRecord> {
    records.iter().filter(|record| record.outcome == RequestOutcome::Ok)
}

/// Which part of a request's tokens arrived inside, its tokens spread evenly over its chunks.
fn share_inside(record: &RequestRecord, inside: impl Fn(MonoNs) -> bool) -> f64 {
    let chunks: &[Chunk] = match text_chunks(record) {
        [] => &record.chunks,
        text => text,
    };
    if chunks.is_empty() {
        return if inside(record.end) { 1.0 } else { 0.0 };
    }
    let hits = chunks.iter().filter(|chunk| inside(chunk.at)).count();
    count_f64(hits as u64) / count_f64(chunks.len() as u64)
}

/// A sum that knows how much of it is missing.
#[derive(Clone, Copy, Debug, Default)]
struct TokenSum {
    tokens: f64,
    requests: u64,
    missing: u64,
}

impl TokenSum {
    fn add(&mut self, tokens: Option<u32>, share: f64) {
        self.requests += 1;
        match tokens {
            Some(tokens) => self.tokens += f64::from(tokens) * share,
            None => self.missing += 1,
        }
    }

    fn value(self) -> Option<f64> {
        let limit = count_f64(self.requests) * MISSING_USAGE_LIMIT;
        (count_f64(self.missing) <= limit).then_some(self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{facts, ms, record};

    /// Two users. One request runs from 0 to 2 s, one from 1 to 5 s; full at 1 s, stopped at 4 s.
    fn worked() -> (PhaseFacts, Vec<RequestRecord>) {
        let facts = facts("2-users", 2, [0, 1000, 4000, 5000]);
        let records = vec![
            record(0, ms(0), &[500, 1000, 1500, 2000], 8), // 10 prompt tokens each
            record(1, ms(1000), &[2000, 3000, 4000, 5000], 4),
        ];
        (facts, records)
    }

    #[test]
    fn whole_and_steady_worked_by_hand() {
        let (facts, records) = worked();
        let whole = whole(&facts, &records).unwrap();
        assert_eq!((whole.duration_s, whole.requests), (5.0, 2));
        assert_eq!(whole.output_tokens_per_s, Some(12.0 / 5.0));
        assert_eq!(whole.total_tokens_per_s, Some(32.0 / 5.0));
        assert_eq!(whole.requests_per_s, 2.0 / 5.0);
        // Inside [1, 4) s: chunks at 1, 1.5 and 2 s of the first (3 of 4, so 6 tokens), at 2 and
        // 3 s of the second (2 of 4, so 2 tokens); the first's text began before it.
        let steady = steady(&facts, &records).unwrap();
        assert_eq!((steady.duration_s, steady.requests), (3.0, 1));
        assert_eq!(steady.output_tokens, Some(8.0));
        assert_eq!(steady.input_tokens, Some(10.0));
        assert_eq!(steady.total_tokens_per_s, Some(6.0));
    }

    #[test]
    fn a_window_that_never_was_is_absent() {
        let (mut facts, records) = worked();
        facts.full_at = None;
        assert_eq!(steady(&facts, &records), None);
        facts.full_at = Some(facts.stopped_at);
        assert_eq!(steady(&facts, &records), None);
    }

    #[test]
    fn failed_requests_give_no_tokens() {
        let (facts, mut records) = worked();
        records[1].outcome = RequestOutcome::Cut;
        let got = whole(&facts, &records).unwrap();
        assert_eq!((got.requests, got.output_tokens), (1, Some(8.0)));
        records[0].outcome = RequestOutcome::Stalled;
        // Nothing was delivered: that is a measured zero, not an absent figure.
        assert_eq!(whole(&facts, &records).unwrap().output_tokens_per_s, Some(0.0));
    }

    #[test]
    fn a_sum_without_its_counts_is_absent() {
        let (facts, mut records) = worked();
        records[1].output_tokens_reported = None;
        let got = whole(&facts, &records).unwrap();
        assert_eq!((got.output_tokens, got.total_tokens_per_s), (None, None));
        assert_eq!(got.input_tokens, Some(20.0));
        // One in a hundred missing is tolerated; the sum is then a lower bound.
        let mut many = vec![record(0, ms(0), &[500], 2); 100];
        many[0].output_tokens_reported = None;
        assert_eq!(whole(&facts, &many).unwrap().output_tokens, Some(198.0));
    }
}
