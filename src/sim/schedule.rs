//! Continuous batching: who is admitted, what a step does and how long it takes.
//!
//! Pure: no clock, no thread. The caller says when requests come and go and when a step begins;
//! the scheduler says when the step ends and which tokens it brings. So the time of every token
//! is a function of the arrivals, the seed and the costs alone.
//!
//! Invariants: requests are admitted in the order of their arrival; reserved KV tokens and
//! running requests never exceed their limits; an admitted request that is not cancelled brings
//! exactly its `output_tokens`.

use crate::seed::{Seed, Stream};
use crate::units::{MonoNs, count_f64};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Requests that run at the same time.
    pub(crate) max_running: usize,
    /// Prompt and output tokens that all running requests may reserve together.
    pub(crate) kv_tokens: u64,
    /// Prompt tokens that one step may take in beside decoding. `None`: a prompt is taken in
    /// whole, and decoding waits for it.
    pub(crate) chunked_prefill: Option<u64>,
    /// Decoding waits while any prompt is taken in, chunked or not.
    pub(crate) prefill_first: bool,
}

/// A step that decodes costs `step`, which is mostly reading the weights, + `per_request` a decoding
/// request + `per_kv_token_ns` a token of their contexts + its prompt tokens /
/// `prefill_tokens_per_second`. One that only takes in prompts costs the last of these, but at
/// least `prefill_step`. All of it is varied by `jitter_percent`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    pub(crate) step: Duration,
    pub(crate) per_request: Duration,
    pub(crate) per_kv_token_ns: f64,
    pub(crate) prefill_tokens_per_second: u64,
    pub(crate) prefill_step: Duration,
    /// A step's cost is drawn evenly from its nominal cost plus or minus this.
    pub(crate) jitter_percent: f64,
}

pub(crate) type JobId = u64;

/// A request, as far as the scheduler cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) prompt_tokens: u64,
    /// Of these; their keys and values are there, so that nobody computes them. Less than all.
    pub(crate) cached_tokens: u64,
    /// Reserved from admission to the end, however short the answer turns out.
    pub(crate) max_tokens: u64,
    /// Where the model stops: `1..=max_tokens`.
    pub(crate) output_tokens: u64,
}

impl Job {
    pub(crate) const fn kv_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.max_tokens)
    }
}

/// One token of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) job: JobId,
    /// From 0.
    pub(crate) index: u64,
    pub(crate) last: bool,
}

/// What the engine shows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv_used: u64,
    /// Those from the cache included.
    pub(crate) prompt_tokens_total: u64,
    pub(crate) cached_tokens_total: u64,
    pub(crate) generation_tokens_total: u64,
}

#[derive(Debug)]
struct Running {
    job: Job,
    prefilled: u64,
    produced: u64,
    /// What the step under way does for this request.
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nothing,
    Prefill(u64),
    Decode,
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    costs: Costs,
    jitter: Stream,
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    kv_used: u64,
    prompt_tokens_total: u64,
    cached_tokens_total: u64,
    generation_tokens_total: u64,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits, costs: Costs, seed: Seed) -> Self {
        Self {
            limits,
            costs,
            jitter: seed.branch("jitter").stream(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            kv_used: 0,
            prompt_tokens_total: 0,
            cached_tokens_total: 0,
            generation_tokens_total: 0,
        }
    }

    /// Puts a request at the end of the queue. One that can never fit would block all others for
    /// good, so the caller refuses it before.
    pub(crate) fn arrive(&mut self, job: Job) {
        debug_assert!(job.kv_tokens() <= self.limits.kv_tokens, "can never be admitted");
        debug_assert!(job.cached_tokens < job.prompt_tokens, "nothing left to compute");
        debug_assert!((1..=job.max_tokens).contains(&job.output_tokens), "no such length");
        self.waiting.push_back(job);
    }

    /// Frees what a request holds. Unknown ones have ended already.
    pub(crate) fn cancel(&mut self, id: JobId) {
        self.waiting.retain(|job| job.id != id);
        if let Some(at) = self.running.iter().position(|running| running.job.id == id) {
            self.kv_used -= self.running.remove(at).job.kv_tokens();
        }
    }

    /// Admits what fits and begins a step at `now`. Returns its end, or `None` when idle.
    pub(crate) fn begin(&mut self, now: MonoNs) -> Option<MonoNs> {
        self.admit();
        if self.running.is_empty() {
            return None;
        }
        self.share_out();
        Some(now.plus(self.cost()))
    }

    /// Ends the step under way: its tokens, in the order of admission.
    pub(crate) fn finish(&mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        for running in &mut self.running {
            match std::mem::replace(&mut running.part, Part::Nothing) {
                Part::Nothing => continue,
                Part::Prefill(taken) => {
                    running.prefilled += taken;
                    self.prompt_tokens_total += taken;
                    if running.prefilled < running.job.prompt_tokens {
                        continue;
                    }
                }
                Part::Decode => {}
            }
            tokens.push(Token {
                job: running.job.id,
                index: running.produced,
                last: running.produced + 1 == running.job.output_tokens,
            });
            running.produced += 1;
            self.generation_tokens_total += 1;
        }
        self.running.retain(|running| {
            let ended = running.produced == running.job.output_tokens;
            if ended {
                self.kv_used -= running.job.kv_tokens();
            }
            !ended
        });
        tokens
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_used: self.kv_used,
            prompt_tokens_total: self.prompt_tokens_total,
            cached_tokens_total: self.cached_tokens_total,
            generation_tokens_total: self.generation_tokens_total,
        }
    }

    /// The head of the queue waits for its room; nobody overtakes it.
    fn admit(&mut self) {
        while let Some(&job) = self.waiting.front()
            && self.running.len() < self.limits.max_running
            && self.kv_used + job.kv_tokens() <= self.limits.kv_tokens
        {
            self.waiting.pop_front();
            self.kv_used += job.kv_tokens();
            self.prompt_tokens_total += job.cached_tokens;
            self.cached_tokens_total += job.cached_tokens;
            let (prefilled, part) = (job.cached_tokens, Part::Nothing);
            self.running.push(Running { job, prefilled, produced: 0, part });
        }
    }

    /// Decides what the step does for each running request.
    fn share_out(&mut self) {
        let alone = self.limits.chunked_prefill.is_none() || self.limits.prefill_first;
        let prefills = |running: &Running| running.produced == 0;
        let decoding_waits = alone && self.running.iter().any(prefills);
        let mut budget = self.limits.chunked_prefill.unwrap_or(u64::MAX);
        for running in &mut self.running {
            running.part = if !prefills(running) {
                if decoding_waits { Part::Nothing } else { Part::Decode }
            } else if budget > 0 {
                let taken = budget.min(running.job.prompt_tokens - running.prefilled);
                budget -= taken;
                Part::Prefill(taken)
            } else {
                Part::Nothing
            };
        }
    }

    fn cost(&mut self) -> Duration {
        let (mut decoding, mut context, mut prompt_tokens) = (0_u32, 0_u64, 0_u64);
        for running in &self.running {
            match running.part {
                Part::Nothing => {}
                Part::Decode => {
                    decoding += 1;
                    context += running.prefilled + running.produced;
                }
                Part::Prefill(taken) => prompt_tokens += taken,
            }
        }
        let rate = u128::from(self.costs.prefill_tokens_per_second.max(1));
        let prefill_ns = u128::from(prompt_tokens) * 1_000_000_000 / rate;
        let prefill = Duration::from_nanos(u64::try_from(prefill_ns).unwrap_or(u64::MAX));
        let cost = if decoding > 0 {
            let attention = count_f64(context) * self.costs.per_kv_token_ns / 1e9;
            let attention = Duration::try_from_secs_f64(attention).unwrap_or_default();
            prefill + self.costs.step + self.costs.per_request * decoding + attention
        } else {
            prefill.max(self.costs.prefill_step)
        };
        // Drawn even without jitter, so that the stream's position is the step's number.
        let swing = 2.0 * self.jitter.unit() - 1.0;
        scale(cost, 1.0 + self.costs.jitter_percent / 100.0 * swing)
    }
}

/// A factor of exactly 1 must not round the nanoseconds.
pub(super) fn scale(span: Duration, factor: f64) -> Duration {
    if (factor - 1.0).abs() < f64::EPSILON { span } else { span.mul_f64(factor.max(0.0)) }
}

impl Load {
    /// Share of the KV tokens that is reserved.
    pub(crate) fn kv_usage(&self, limits: &Limits) -> f64 {
        count_f64(self.kv_used) / count_f64(limits.kv_tokens.max(1))
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
