//! The scheduler, driven in virtual time.

use super::*;
use std::collections::BTreeMap;

const MS: i64 = 1_000_000;

fn limits() -> Limits {
    Limits { max_running: 2, kv_tokens: 1000, chunked_prefill: None, prefill_first: false }
}

fn costs() -> Costs {
    Costs {
        step: Duration::from_millis(10),
        per_request: Duration::from_millis(1),
        per_kv_token_ns: 0.0,
        prefill_tokens_per_second: 1000,
        prefill_step: Duration::ZERO,
        jitter_percent: 0.0,
    }
}

fn job(id: JobId, prompt_tokens: u64, output_tokens: u64) -> Job {
    Job { id, prompt_tokens, cached_tokens: 0, max_tokens: output_tokens, output_tokens }
}

/// Plays jobs, given with their arrival in milliseconds, and returns `(job, token's ms)`.
fn play(limits: Limits, costs: Costs, arrivals: &[(i64, Job)]) -> Vec<(JobId, i64)> {
    let mut scheduler = Scheduler::new(limits, costs, Seed::new(1));
    let mut coming = arrivals.iter().copied().peekable();
    let mut now = MonoNs::new(0);
    let mut out = Vec::new();
    loop {
        while let Some((_, job)) = coming.next_if(|(ms, _)| ms * MS <= now.get()) {
            scheduler.arrive(job);
        }
        match (scheduler.begin(now), coming.peek()) {
            (Some(end), _) => {
                now = end;
                let ms = now.get() / MS;
                out.extend(scheduler.finish().iter().map(|token| (token.job, ms)));
            }
            (None, Some((ms, _))) => now = MonoNs::new(ms * MS),
            (None, None) => return out,
        }
    }
}

#[track_caller]
fn check(limits: Limits, arrivals: &[(i64, Job)], tokens: &[(JobId, i64)]) {
    assert_eq!(play(limits, costs(), arrivals), tokens);
}

#[test]
fn one_request_pays_its_prefill_and_then_a_step_a_token() {
    check(limits(), &[(5, job(1, 20, 3))], &[(1, 25), (1, 36), (1, 47)]);
}

#[test]
fn two_decoding_requests_share_the_step() {
    check(
        limits(),
        &[(0, job(1, 20, 2)), (0, job(2, 20, 3))],
        &[(1, 40), (2, 40), (1, 52), (2, 52), (2, 63)],
    );
}

#[test]
fn a_whole_prefill_stops_the_others_decoding() {
    check(
        limits(),
        &[(0, job(1, 20, 3)), (25, job(2, 100, 1))],
        &[(1, 20), (1, 31), (2, 131), (1, 142)],
    );
}

#[test]
fn a_chunked_prefill_shares_its_steps_with_decoding() {
    let chunked = Limits { chunked_prefill: Some(50), ..limits() };
    check(
        chunked,
        &[(0, job(1, 20, 4)), (25, job(2, 100, 1))],
        &[(1, 20), (1, 31), (1, 92), (1, 153), (2, 153)],
    );
}

#[test]
fn decoding_can_be_made_to_wait_for_chunks_too() {
    let first = Limits { chunked_prefill: Some(50), prefill_first: true, ..limits() };
    check(
        first,
        &[(0, job(1, 20, 3)), (25, job(2, 100, 1))],
        &[(1, 20), (1, 31), (2, 131), (1, 142)],
    );
}

/// Contexts of 21 and 22 tokens at 100 us each; a prompt of 20 takes 20 ms, but 50 at least.
#[test]
fn contexts_are_read_and_a_prompt_costs_a_step_at_least() {
    let costs = Costs {
        per_kv_token_ns: 1e5,
        prefill_step: Duration::from_millis(50),
        step: Duration::from_micros(10_900),
        per_request: Duration::ZERO,
        ..costs()
    };
    let got = play(limits(), costs, &[(0, job(1, 20, 3))]);
    assert_eq!(got, [(1, 50), (1, 63), (1, 76)]);
}

/// Of 100 tokens 80 are in the cache: 20 ms instead of 100.
#[test]
fn what_is_cached_is_not_computed() {
    let cached = Job { cached_tokens: 80, ..job(1, 100, 2) };
    check(limits(), &[(0, cached)], &[(1, 20), (1, 31)]);
}

#[test]
fn a_request_waits_for_a_slot() {
    let alone = Limits { max_running: 1, ..limits() };
    check(alone, &[(0, job(1, 20, 2)), (1, job(2, 20, 1))], &[(1, 20), (1, 31), (2, 51)]);
}

#[test]
fn nobody_overtakes_the_head_of_the_queue() {
    // 2 needs more KV tokens than 1 leaves; 3 would fit but comes after it.
    check(
        limits(),
        &[(0, job(1, 500, 2)), (1, job(2, 600, 1)), (2, job(3, 20, 1))],
        &[(1, 500), (1, 511), (2, 1131), (3, 1131)],
    );
}

#[test]
fn a_cancelled_request_frees_its_room_at_once() {
    let mut scheduler = Scheduler::new(limits(), costs(), Seed::new(1));
    scheduler.arrive(job(1, 900, 10));
    scheduler.arrive(job(2, 900, 10));
    scheduler.begin(MonoNs::new(0));
    assert_eq!((scheduler.load().running, scheduler.load().waiting), (1, 1));
    scheduler.cancel(1);
    scheduler.cancel(7);
    assert_eq!(scheduler.finish(), [], "a cancelled request brings nothing");
    scheduler.begin(MonoNs::new(MS));
    assert_eq!((scheduler.load().running, scheduler.load().kv_used), (1, 910));
    scheduler.cancel(2);
    assert_eq!(scheduler.begin(MonoNs::new(2 * MS)), None);
    assert_eq!(scheduler.load().kv_used, 0);
}

#[test]
fn jitter_stays_within_its_bounds_and_repeats() {
    let jittery = Costs { jitter_percent: 20.0, ..costs() };
    let one = [(0, job(1, 1, 200))];
    let tokens = play(limits(), jittery, &one);
    assert_eq!(tokens, play(limits(), jittery, &one));
    let gaps: Vec<i64> = tokens.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert!(gaps.iter().all(|gap| (8..=14).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap <= 9) && gaps.iter().any(|gap| *gap >= 12), "{gaps:?}");
}

/// Random arrivals, cancels and limits; the invariants after every step.
#[test]
fn a_random_walk_keeps_every_promise() {
    for seed in 0..200 {
        walk(Seed::new(seed));
    }
}

fn walk(seed: Seed) {
    let mut dice = seed.branch("walk").stream();
    let mut draw = |from: u64, to: usize| from + dice.below(to) as u64;
    let limits = Limits {
        max_running: usize::try_from(draw(1, 6)).unwrap(),
        kv_tokens: draw(64, 200),
        chunked_prefill: (draw(0, 2) == 1).then(|| draw(1, 30)),
        prefill_first: draw(0, 2) == 1,
    };
    let mut scheduler = Scheduler::new(limits, costs(), seed);
    let mut jobs: BTreeMap<JobId, (Job, u64)> = BTreeMap::new();
    let mut first_tokens = Vec::new();
    let mut cancelled = Vec::new();
    let (mut now, mut steps) = (MonoNs::new(0), 0);
    loop {
        let arriving = jobs.len() < 40;
        if arriving && draw(0, 2) == 0 {
            let max_tokens = draw(1, 20);
            let job = Job {
                id: jobs.len() as u64,
                prompt_tokens: draw(1, 40),
                cached_tokens: 0,
                max_tokens,
                output_tokens: draw(1, usize::try_from(max_tokens).unwrap()),
            };
            jobs.insert(job.id, (job, 0));
            scheduler.arrive(job);
        }
        if draw(0, 20) == 0 && !jobs.is_empty() {
            let id = draw(0, jobs.len());
            scheduler.cancel(id);
            cancelled.push(id);
        }
        let Some(end) = scheduler.begin(now) else { if arriving { continue } else { break } };
        assert!(end >= now, "time never goes back");
        let load = scheduler.load();
        assert!(load.kv_used <= limits.kv_tokens && load.running <= limits.max_running);
        for token in scheduler.finish() {
            let (job, produced) = jobs.get_mut(&token.job).unwrap();
            assert_eq!(token.index, *produced);
            *produced += 1;
            assert_eq!(token.last, *produced == job.output_tokens);
            if token.index == 0 {
                first_tokens.push(token.job);
            }
        }
        now = end;
        steps += 1;
        assert!(steps < 10_000, "every request ends");
    }
    for (id, (job, produced)) in &jobs {
        let whole = *produced == job.output_tokens;
        assert!(whole || cancelled.contains(id), "{id}: {produced} of {job:?}");
    }
    assert!(first_tokens.is_sorted(), "first in, first served: {first_tokens:?}");
    assert_eq!(scheduler.load().kv_used, 0, "everything is given back");
}
