//! The profiles of a simulated A40, driven in virtual time through the phases of the experiment
//! they stand for, and held against what an A40 can do. Nothing here is a measurement.

use super::options::Settings;
use super::options::tests::parse;
use super::schedule::{Job, JobId, Scheduler};
use crate::engine::launch::{self, Slots};
use crate::engine::library::Library;
use crate::form::host::FakeHost;
use crate::physics::config_json::Config;
use crate::physics::gpu::{GpuTable, Hardware};
use crate::physics::roofline::{Against, Machine, Measured};
use crate::seed::Seed;
use crate::units::{MonoNs, count_f64, ns_to_ms};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const ISL: u64 = 128;
const OSL: u64 = 256;

/// What the engine file's command line makes of the simulated engine.
fn settings(engine: &str) -> Settings {
    let library = Library::load(Vec::new()).unwrap();
    let engine = library.find(engine, &[], &FakeHost::default()).unwrap();
    assert!(engine.simulated, "every report must label it");
    let slots = Slots {
        program: None,
        python: None,
        model: Path::new("/m"),
        served_name: "m",
        host: "127.0.0.1",
        port: 1,
        gpus: None,
        sweepd: Path::new("sweepd"),
    };
    let argv = launch::argv(&engine, &BTreeMap::new(), &[], &slots).unwrap();
    let flags: Vec<&str> = argv.iter().skip(2).map(String::as_str).collect();
    parse(&format!("{} --max-running 128", flags.join(" "))).unwrap().settings()
}

#[derive(Clone, Copy, Debug)]
struct Life {
    sent: MonoNs,
    first: MonoNs,
    last: MonoNs,
}

/// A closed loop: each user's next request follows its last token. `min_requests` and `min_s` both.
fn drive(settings: &Settings, users: u64, min_requests: u64, min_s: u64) -> (Vec<Life>, MonoNs) {
    let mut scheduler = Scheduler::new(settings.limits, settings.costs, Seed::new(1));
    let mut lives: BTreeMap<JobId, Life> = BTreeMap::new();
    let send = |scheduler: &mut Scheduler, lives: &mut BTreeMap<JobId, Life>, at: MonoNs| {
        let id = count(lives.len());
        let (prompt_tokens, output_tokens) = (ISL, OSL);
        let cached_tokens = 0;
        scheduler.arrive(Job { id, prompt_tokens, cached_tokens, max_tokens: OSL, output_tokens });
        lives.insert(id, Life { sent: at, first: at, last: at });
    };
    let mut now = MonoNs::new(0);
    for _ in 0..users {
        send(&mut scheduler, &mut lives, now);
    }
    let mut stopped = None;
    while let Some(end) = scheduler.begin(now) {
        now = end;
        for token in scheduler.finish() {
            let life = lives.get_mut(&token.job).unwrap();
            life.last = now;
            if token.index == 0 {
                life.first = now;
            }
            let long = now.since(MonoNs::new(0)) >= Duration::from_secs(min_s);
            if token.last && count(lives.len()) >= min_requests && long {
                stopped.get_or_insert(now);
            } else if token.last {
                send(&mut scheduler, &mut lives, now);
            }
        }
    }
    (lives.into_values().collect(), stopped.unwrap())
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

/// Both windows and the fastest requests, as a report has them.
fn measured(users: u64, (lives, stopped): &(Vec<Life>, MonoNs)) -> Measured {
    let start = MonoNs::new(0);
    let end = lives.iter().map(|life| life.last).max().unwrap();
    let whole = count_f64(count(lives.len()) * OSL) / end.since(start).as_secs_f64();
    // Evenly spread over each request's decoding: what lies before sending stopped.
    let inside = |life: &Life| {
        let span = life.last.since(life.first).as_secs_f64();
        (stopped.since(life.first).as_secs_f64() / span).min(1.0)
    };
    let steady = lives.iter().map(|life| inside(life) * count_f64(OSL)).sum::<f64>()
        / stopped.since(start).as_secs_f64();
    let tpot = |life: &Life| ns_to_ms(life.last.since_ns(life.first)) / count_f64(OSL - 1);
    let ttft = |life: &Life| ns_to_ms(life.first.since_ns(life.sent));
    Measured {
        users: u32::try_from(users).unwrap(),
        isl: count_f64(ISL),
        osl: count_f64(OSL),
        cached: 0.0,
        least_isl: count_f64(ISL),
        output_tokens_per_s: steady,
        most_tokens_per_s: steady.max(whole),
        mean_tpot_ms: Some(lives.iter().map(tpot).sum::<f64>() / count_f64(count(lives.len()))),
        min_tpot_ms: Some(least(lives.iter().map(tpot))),
        min_ttft_ms: Some(least(lives.iter().map(ttft))),
    }
}

fn against(of: &Measured) -> Against {
    let gpu = GpuTable::built_in().unwrap().find("A40").unwrap().clone();
    let hardware = Hardware { gpu, count: 1, kv_cache_bits: None };
    let config = Config::parse(include_bytes!("../physics/models/8b.json")).unwrap();
    let shape = config.shape().unwrap();
    Machine { hardware: &hardware, shape: &shape }.against(of).unwrap()
}

/// The phases of both sweeps: the sound one and the one as it was first reported.
fn phases() -> impl Iterator<Item = (u64, u64, u64)> {
    [10, 50, 100]
        .into_iter()
        .flat_map(|users| [(users, (10 * users).max(300), 30), (users, 5 * users, 0)])
}

#[test]
fn no_profile_is_faster_than_an_a40_in_any_phase() {
    for engine in ["sim-a40-sglang", "sim-a40-lmdeploy"] {
        let settings = settings(engine);
        for (users, min_requests, min_s) in phases() {
            let of = measured(users, &drive(&settings, users, min_requests, min_s));
            let got = against(&of);
            assert!(got.impossible.is_empty(), "{engine}, {users} users: {of:?}\n{got:?}");
            // Nor so slow that it would tell nothing about such a pair.
            assert!((0.45..0.90).contains(&got.roofline_share), "{engine}, {users} users: {got:?}");
            assert!(got.mbu_most.is_some_and(|most| most <= 1.0), "{got:?}");
        }
    }
}

/// Who wins and by how much is made up; that they differ, and by no more than engines do, is not.
#[test]
fn the_profiles_differ_as_two_engines_may() {
    let speed = |engine: &str, users| {
        let settings = settings(engine);
        measured(users, &drive(&settings, users, 300, 30)).output_tokens_per_s
    };
    for users in [10, 50, 100] {
        let ratio = speed("sim-a40-lmdeploy", users) / speed("sim-a40-sglang", users);
        assert!((1.02..1.35).contains(&ratio), "{users} users: {ratio}");
    }
}

/// Every step by itself, at its fastest: also at lengths that no example has.
#[test]
fn no_step_of_a_profile_is_faster_than_its_bytes() {
    for engine in ["sim-a40-sglang", "sim-a40-lmdeploy"] {
        let costs = settings(engine).costs;
        // Of any launch: this one may be a slow one.
        let fastest = (1.0 - costs.jitter_percent / 100.0) * 0.97;
        let step_ms = costs.step.as_secs_f64() * 1e3 * fastest;
        let floor = against(&measured(10, &drive(&settings(engine), 10, 300, 30))).tpot_floor_ms;
        assert!(step_ms > floor, "{engine}: {step_ms} ms for a step that takes {floor} ms");
        assert!(costs.prefill_step.as_secs_f64() * 1e3 * fastest > floor, "{engine}");
        let kv_floor_ns = 131_072.0 / 696.0;
        assert!(costs.per_kv_token_ns * fastest > kv_floor_ns, "{engine}");
        // 13.96 GFLOP a token, and at 8,192 tokens of context 4.3 more for attention.
        let most = 149.7e12 / (13.96e9 + 4.3e9);
        assert!(count_f64(costs.prefill_tokens_per_second) / fastest < most, "{engine}");
    }
}
