//! One phase of one trial: windows, latencies, counts.
//!
//! A phase that was driven to its end, or to its deadline, is *measured*. One that broke off
//! because the engine hung, died or was stopped gives counts only: its figures would describe the
//! time before the failure and be read as the engine's speed.
//!
//! Invariant: sent = ok + failed, and failed = the sum of the failure classes.

use crate::run::host::PhaseHost;
use crate::run::phase::{PhaseEnd, PhaseFacts};
use crate::run::record::{RequestOutcome, RequestRecord};
use crate::stats::data::PhaseData;
use crate::stats::dataset::DatasetUse;
use crate::stats::engine::EngineFigures;
use crate::stats::gpu::GpuTrial;
use crate::stats::group::{self, GroupTrial};
use crate::stats::marks::MarkCode;
use crate::stats::marks_gpu;
use crate::stats::metric::{Censoring, Distributions, Samples, share};
use crate::stats::quantile::Distribution;
use crate::stats::request::{RequestMetrics, text_chunks};
use crate::stats::sample::sample;
use crate::stats::settle::{self, Parts};
use crate::stats::window::{self, Window};
use crate::units::{count_f64, ns_to_ms};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseTrial {
    pub(crate) block: u32,
    pub(crate) attempt: u32,
    /// The users of a closed loop; of an open one what was in flight at once, at most.
    #[serde(default)]
    pub(crate) most_in_flight: u32,
    pub(crate) end: PhaseEnd,
    /// Its figures count; if not, only its requests do.
    pub(crate) measured: bool,
    pub(crate) whole: Option<Window>,
    pub(crate) steady: Option<Window>,
    /// Ramp, settling, steady part and drain; absent where the ramp never ended.
    #[serde(default)]
    pub(crate) parts: Option<Parts>,
    /// The share of prompt tokens that a prefix cache is meant to know.
    #[serde(default)]
    pub(crate) intended_cached: f64,
    /// How it used its part of a data set; absent where there is none.
    #[serde(default)]
    pub(crate) dataset: Option<DatasetUse>,
    /// Classes of its requests, and stages of its schedule.
    #[serde(default)]
    pub(crate) groups: Vec<GroupTrial>,
    pub(crate) latency: Distributions,
    pub(crate) censoring: Censoring,
    pub(crate) requests: Requests,
    pub(crate) tokens: Tokens,
    pub(crate) client: Client,
    /// Absent where the engine was not asked, or never answered.
    pub(crate) engine: Option<EngineFigures>,
    /// Absent where it owned no GPU, or nothing was sampled of it.
    #[serde(default)]
    pub(crate) gpu: Option<GpuTrial>,
    #[serde(default)]
    pub(crate) host: Option<PhaseHost>,
    /// Marks that GPUs and host give it.
    #[serde(default)]
    pub(crate) noticed: Vec<(MarkCode, String)>,
}

/// Requests by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// The failed ones by class; a class without any is missing.
    pub(crate) failed_by_class: BTreeMap<RequestOutcome, u64>,
    /// What the failed ones said, the commonest first.
    pub(crate) errors: Vec<ErrorCount>,
    /// Sent by the load generator's own count, but without a record.
    pub(crate) lost: u64,
    /// Whole requests without a usable TTFT: no text came, or its stamp cannot be right.
    pub(crate) without_ttft: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ErrorCount {
    pub(crate) count: u64,
    pub(crate) class: RequestOutcome,
    pub(crate) http_status: Option<u16>,
    pub(crate) error: Option<String>,
}

/// The server's token counts of whole requests, against what was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    /// Sum of what the server reported.
    pub(crate) prompt: u64,
    pub(crate) output: u64,
    /// Content tokens that were asked, of these requests.
    #[serde(default)]
    pub(crate) prompt_asked: u64,
    /// Requests for which the server reported no output count.
    pub(crate) usage_missing: u64,
    /// The fewest prompt tokens that a request had computed, those from the cache left out.
    #[serde(default)]
    pub(crate) prompt_computed_least: Option<u64>,
    /// Requests whose prompt count could be compared, and those that differed.
    pub(crate) prompt_compared: u64,
    pub(crate) prompt_mismatched: u64,
    /// Requests that brought fewer output tokens than asked, and how many tokens were missing.
    pub(crate) output_short: u64,
    pub(crate) output_short_tokens: u64,
    /// Prompt tokens that the server says came from its cache; absent if it never says.
    pub(crate) cached: Option<u64>,
    /// Prompt tokens that an earlier request had, of the requests for which that is known.
    #[serde(default)]
    pub(crate) cached_meant: u64,
    #[serde(default)]
    pub(crate) cached_meant_of: u64,
    /// Chunks with text: a chunk may hold several tokens.
    pub(crate) text_chunks: u64,
}

/// What the load cost the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) cpu_s: f64,
    pub(crate) max_rss_bytes: u64,
    /// Of one CPU, over the phase: the loop is one thread.
    #[serde(default)]
    pub(crate) cpu_share: f64,
    pub(crate) max_turn_gap_ms: f64,
    #[serde(default)]
    pub(crate) stalls: u32,
    /// Of the loop, the highest of the trials.
    #[serde(default)]
    pub(crate) niceness: Option<i32>,
    #[serde(default)]
    pub(crate) read_lag_p99_ms: Option<f64>,
    /// From due to sent, less the time to connect: 99 of 100 requests.
    #[serde(default)]
    pub(crate) send_lag_p99_ms: Option<f64>,
    /// Of an open loop: due, begun late, never begun.
    #[serde(default)]
    pub(crate) scheduled: u64,
    #[serde(default)]
    pub(crate) started_late: u64,
    #[serde(default)]
    pub(crate) not_started: u64,
    pub(crate) reads: u64,
    pub(crate) coalesced_reads: u64,
    pub(crate) clock_steps: u32,
    pub(crate) clock_step_requests: u64,
    /// Phases for which the kernel gave no receive stamps at all.
    pub(crate) phases_without_kernel_stamps: u32,
}

impl PhaseTrial {
    /// The samples go along, to be pooled over trials; they are empty for an unmeasured phase.
    pub(crate) fn of(block: u32, attempt: u32, data: &PhaseData) -> (Self, Samples) {
        let PhaseData { facts, records, engine, gpu, host } = data;
        let measured = match facts.end {
            PhaseEnd::Finished | PhaseEnd::Deadline => true,
            PhaseEnd::Hang | PhaseEnd::EngineGone | PhaseEnd::OnlyFailures | PhaseEnd::Stopped => {
                false
            }
        };
        let counted: &[RequestRecord] = if measured { records } else { &[] };
        let (mut samples, censoring) = sample(counted);
        let groups = group::groups(facts, records, measured, &mut samples);
        let tokens = Tokens::of(records);
        let figures = gpu.as_ref().and_then(|gpu| GpuTrial::of(gpu, tokens.counted()));
        let phase = Self {
            block,
            attempt,
            most_in_flight: facts.users,
            end: facts.end,
            measured,
            whole: measured.then(|| window::whole(facts, records)).flatten(),
            steady: measured.then(|| window::steady(facts, records)).flatten(),
            parts: measured.then(|| settle::parts(facts, records)).flatten(),
            intended_cached: facts.intended_cached,
            dataset: DatasetUse::of(facts, records),
            groups,
            latency: samples.distributions(censoring),
            censoring,
            requests: Requests::of(facts, records),
            tokens,
            client: Client::of(facts, records),
            engine: EngineFigures::of(facts, engine),
            noticed: marks_gpu::noticed(data, figures.as_ref()),
            gpu: figures.filter(|_| measured),
            host: *host,
        };
        (phase, samples)
    }
}

impl Requests {
    /// How many different errors are kept.
    const ERRORS_KEPT: usize = 5;

    fn of(facts: &PhaseFacts, records: &[RequestRecord]) -> Self {
        let mut got = Self { sent: count(records.len()), ..Self::default() };
        let mut errors = BTreeMap::new();
        for record in records {
            if record.outcome == RequestOutcome::Ok {
                got.ok += 1;
                let ttft = RequestMetrics::of(record).and_then(|metrics| metrics.ttft_ms);
                got.without_ttft += u64::from(ttft.is_none());
            } else {
                got.failed += 1;
                *got.failed_by_class.entry(record.outcome).or_default() += 1;
                let said = (record.outcome, record.http_status, record.error.clone());
                *errors.entry(said).or_default() += 1;
            }
        }
        got.errors = commonest(errors);
        got.lost = facts.records.saturating_sub(got.sent);
        debug_assert!(got.adds_up(), "sent = ok + failed by class: {got:?}");
        got
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.ok += other.ok;
        self.failed += other.failed;
        self.lost += other.lost;
        self.without_ttft += other.without_ttft;
        for (class, count) in &other.failed_by_class {
            *self.failed_by_class.entry(*class).or_default() += count;
        }
        let mut errors = BTreeMap::new();
        for error in self.errors.drain(..).chain(other.errors.iter().cloned()) {
            *errors.entry((error.class, error.http_status, error.error)).or_default() +=
                error.count;
        }
        self.errors = commonest(errors);
    }

    pub(crate) fn adds_up(&self) -> bool {
        self.sent == self.ok + self.failed
            && self.failed == self.failed_by_class.values().sum::<u64>()
    }
}

type Said = (RequestOutcome, Option<u16>, Option<String>);

fn commonest(errors: BTreeMap<Said, u64>) -> Vec<ErrorCount> {
    let mut all: Vec<ErrorCount> = errors
        .into_iter()
        .map(|((class, http_status, error), count)| ErrorCount { count, class, http_status, error })
        .collect();
    all.sort_by_key(|error| std::cmp::Reverse(error.count));
    all.truncate(Requests::ERRORS_KEPT);
    all
}

impl Tokens {
    fn of(records: &[RequestRecord]) -> Self {
        let mut got = Self::default();
        for record in records.iter().filter(|record| record.outcome == RequestOutcome::Ok) {
            got.text_chunks += count(text_chunks(record).len());
            got.prompt += u64::from(record.prompt_tokens_reported.unwrap_or(0));
            got.prompt_asked += u64::from(record.prompt_tokens_asked);
            if let (Some(meant), Some(prompt)) =
                (record.cached_tokens_meant, record.prompt_tokens_reported)
            {
                got.cached_meant += u64::from(meant.min(prompt));
                got.cached_meant_of += u64::from(prompt);
            }
            let computed = record.prompt_tokens_reported.map(|prompt| {
                u64::from(prompt.saturating_sub(record.cached_tokens_reported.unwrap_or(0)))
            });
            got.prompt_computed_least = least(got.prompt_computed_least, computed);
            let expected = record.prompt_tokens_expected.zip(record.prompt_tokens_reported);
            got.prompt_compared += u64::from(expected.is_some());
            got.prompt_mismatched += u64::from(expected.is_some_and(|(a, b)| a != b));
            if let Some(cached) = record.cached_tokens_reported {
                got.cached = Some(got.cached.unwrap_or(0) + u64::from(cached));
            }
            match record.output_tokens_reported {
                Some(output) => {
                    let short = record.output_tokens_asked.saturating_sub(output);
                    got.output += u64::from(output);
                    got.output_short += u64::from(short > 0);
                    got.output_short_tokens += u64::from(short);
                }
                None => got.usage_missing += 1,
            }
        }
        got
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.prompt += other.prompt;
        self.prompt_asked += other.prompt_asked;
        self.cached_meant += other.cached_meant;
        self.cached_meant_of += other.cached_meant_of;
        self.prompt_computed_least = least(self.prompt_computed_least, other.prompt_computed_least);
        self.output += other.output;
        self.usage_missing += other.usage_missing;
        self.prompt_compared += other.prompt_compared;
        self.prompt_mismatched += other.prompt_mismatched;
        self.output_short += other.output_short;
        self.output_short_tokens += other.output_short_tokens;
        self.text_chunks += other.text_chunks;
        self.cached = match (self.cached, other.cached) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
    }

    /// The share of prompt tokens that an earlier request had; absent where that is not known.
    pub(crate) fn meant_share(&self) -> Option<f64> {
        share(self.cached_meant, self.cached_meant_of)
    }

    /// Output tokens, where the server counted them all.
    pub(crate) fn counted(&self) -> Option<u64> {
        (self.usage_missing == 0).then_some(self.output)
    }

    /// Absent where nothing came, or where the server does not count.
    pub(crate) fn per_chunk(&self) -> Option<f64> {
        let counted = self.text_chunks > 0 && self.usage_missing == 0;
        counted.then(|| count_f64(self.output) / count_f64(self.text_chunks))
    }
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).max_by(f64::total_cmp)
}

/// Of the CPUs that its loops can use, which is one for each.
fn cpu_share(facts: &PhaseFacts) -> f64 {
    let loops = f64::from(facts.client.loops.unwrap_or(1).max(1));
    let wall_s = facts.ended.since(facts.started).as_secs_f64();
    let cpu_s = facts.client.user_cpu_s + facts.client.system_cpu_s;
    if wall_s > 0.0 { cpu_s / wall_s / loops } else { 0.0 }
}

/// Absent below the floor of a p99.
fn send_lag_p99_ms(records: &[RequestRecord]) -> Option<f64> {
    let lag = |record: &RequestRecord| {
        let linking = record.connect_ns.unwrap_or(0) + record.tls_ns.unwrap_or(0);
        let late = record.sent?.since_ns(record.scheduled) - linking;
        Some(ns_to_ms(late.max(0)))
    };
    let mut lags: Vec<f64> = records.iter().filter_map(lag).collect();
    Distribution::of(&mut lags)?.p99
}

impl Client {
    fn of(facts: &PhaseFacts, records: &[RequestRecord]) -> Self {
        let cost = &facts.client;
        Self {
            cpu_s: cost.user_cpu_s + cost.system_cpu_s,
            max_rss_bytes: cost.max_rss_bytes,
            cpu_share: cpu_share(facts),
            max_turn_gap_ms: ns_to_ms(cost.max_turn_gap_ns),
            stalls: cost.stalls,
            niceness: cost.niceness,
            read_lag_p99_ms: cost.read_lag_p99_ns.map(ns_to_ms),
            send_lag_p99_ms: send_lag_p99_ms(records),
            scheduled: facts.open.map_or(0, |open| open.scheduled),
            started_late: facts.open.map_or(0, |open| open.late),
            not_started: facts.open.map_or(0, |open| open.not_started),
            reads: cost.reads,
            coalesced_reads: cost.coalesced_reads,
            clock_steps: cost.clock_steps,
            clock_step_requests: count(records.iter().filter(|record| record.clock_step).count()),
            phases_without_kernel_stamps: u32::from(!facts.kernel_stamps),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.cpu_s += other.cpu_s;
        self.max_rss_bytes = self.max_rss_bytes.max(other.max_rss_bytes);
        self.cpu_share = self.cpu_share.max(other.cpu_share);
        self.max_turn_gap_ms = self.max_turn_gap_ms.max(other.max_turn_gap_ms);
        self.stalls += other.stalls;
        self.niceness = self.niceness.max(other.niceness);
        self.read_lag_p99_ms = larger(self.read_lag_p99_ms, other.read_lag_p99_ms);
        self.send_lag_p99_ms = larger(self.send_lag_p99_ms, other.send_lag_p99_ms);
        self.scheduled += other.scheduled;
        self.started_late += other.started_late;
        self.not_started += other.not_started;
        self.reads += other.reads;
        self.coalesced_reads += other.coalesced_reads;
        self.clock_steps += other.clock_steps;
        self.clock_step_requests += other.clock_step_requests;
        self.phases_without_kernel_stamps += other.phases_without_kernel_stamps;
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{facts, failed, ms, record};
    use crate::stats::metric::Metric;
    use proptest::prelude::*;

    fn phase(end: PhaseEnd) -> PhaseTrial {
        let mut facts = facts("2-users", 2, [0, 100, 900, 1000]);
        facts.end = end;
        facts.records = 3;
        let records = vec![
            record(0, ms(0), &[100, 200, 300], 3),
            record(1, ms(0), &[100, 300, 500], 2),
            failed(2, ms(500), RequestOutcome::HttpError, "busy"),
        ];
        PhaseTrial::of(1, 1, &PhaseData::new(facts, records)).0
    }

    #[test]
    fn a_finished_phase_is_measured() {
        for end in [PhaseEnd::Finished, PhaseEnd::Deadline] {
            let got = phase(end);
            assert!(got.measured);
            assert_eq!(got.latency[&Metric::Ttft].mean, 100.0);
            assert_eq!(got.latency[&Metric::Ttft].p50, None); // n = 2, floor 5
            assert_eq!(got.latency[&Metric::Tpot].mean, 250.0); // 200 / 2 and 400 / 1
            assert_eq!(got.latency[&Metric::Itl].n, 4);
            assert_eq!(got.tokens.output_short, 1); // 2 of 3 asked
            assert_eq!(got.tokens.per_chunk(), Some(5.0 / 6.0));
        }
    }

    #[test]
    fn a_broken_phase_gives_counts_only() {
        let ends =
            [PhaseEnd::Hang, PhaseEnd::EngineGone, PhaseEnd::OnlyFailures, PhaseEnd::Stopped];
        for end in ends {
            let got = phase(end);
            assert!(!got.measured && got.latency.is_empty());
            assert_eq!((got.whole, got.steady), (None, None));
            assert_eq!((got.requests.sent, got.requests.ok, got.requests.failed), (3, 2, 1));
        }
    }

    #[test]
    fn a_record_that_is_missing_is_counted() {
        let mut facts = facts("1-user", 1, [0, 100, 900, 1000]);
        facts.records = 3;
        let records = vec![record(0, ms(0), &[100], 1)];
        assert_eq!(PhaseTrial::of(1, 1, &PhaseData::new(facts, records)).0.requests.lost, 2);
    }

    proptest! {
        #[test]
        fn sent_is_the_sum_of_its_classes(
            classes in prop::collection::vec(0..RequestOutcome::ALL.len(), 0..60),
        ) {
            let facts = facts("any", 1, [0, 10, 900, 1000]);
            let make = |class: &usize| match RequestOutcome::ALL[*class] {
                RequestOutcome::Ok => record(0, ms(0), &[100], 1),
                other => failed(0, ms(0), other, "why"),
            };
            let records: Vec<_> = classes.iter().map(make).collect();
            let mut got = Requests::of(&facts, &records);
            prop_assert!(got.adds_up());
            prop_assert_eq!(got.sent, classes.len() as u64);
            got.add(&got.clone());
            prop_assert!(got.adds_up());
            prop_assert_eq!(got.sent, 2 * classes.len() as u64);
        }
    }
}
