//! Made-up data for tests: requests and phases with round times, and one whole run.

use crate::engine::exposition::MetricName;
use crate::ids::{Name, RunId, TrialId};
use crate::physics::config_json::Config;
use crate::physics::gpu::{Gpu, Hardware};
use crate::run::containment::SharedMemory;
use crate::run::effective::{Difference, EffectiveConfig};
use crate::run::engine_sample::EngineSample;
use crate::run::gpu::{AttemptGpu, OwnedGpu, Placement};
use crate::run::outcome::{
    AttemptOutcome, Ending, EvidenceLine, ExitStatus, Failure, FailureKind, PhaseSource, Teardown,
    TeardownVerdict, TrialOutcome,
};
use crate::run::phase::{ClientCost, PhaseEnd, PhaseFacts};
use crate::run::record::{Chunk, RequestOutcome, RequestRecord};
use crate::stats::data::{
    Fact, MachineFacts, PhaseData, PhasePlan, RunData, SamplingParameter, Setup, TrialData,
    VariantFacts,
};
use crate::sweep::def::{Endpoint, PlannedTrial};
use crate::units::{ClockAnchor, MonoNs};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) fn ms(milliseconds: i64) -> MonoNs {
    MonoNs::new(milliseconds * 1_000_000)
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A whole request with a chunk of text at each of `chunks_ms`, 10 prompt tokens, 3 output
/// tokens asked.
pub(crate) fn record(index: u32, sent: MonoNs, chunks_ms: &[i64], tokens: u32) -> RequestRecord {
    let chunk = |at: &i64| Chunk { at: ms(*at), earliest: ms(*at) };
    RequestRecord {
        index,
        user: 0,
        turn: index,
        scheduled: sent,
        connect_ns: None,
        tls_ns: None,
        sent: Some(sent),
        first_byte: chunks_ms.first().map(|at| ms(*at)),
        first_text_chunk: (!chunks_ms.is_empty()).then_some(0),
        chunks: chunks_ms.iter().map(chunk).collect(),
        end: chunks_ms.last().map_or(sent, |at| ms(*at)),
        outcome: RequestOutcome::Ok,
        http_status: Some(200),
        error: None,
        finish_reason: Some("length".into()),
        prompt_tokens_asked: 10,
        prompt_tokens_expected: Some(10),
        prompt_tokens_reported: Some(10),
        cached_tokens_reported: None,
        cached_tokens_meant: None,
        output_tokens_asked: 3,
        output_tokens_reported: Some(tokens),
        body_bytes: 100,
        reused_connection: true,
        tls: false,
        reuse_race: false,
        clock_step: false,
        user_space_stamps: 0,
        dataset_entry: None,
        class: None,
    }
}

pub(crate) fn failed(
    index: u32,
    sent: MonoNs,
    outcome: RequestOutcome,
    error: &str,
) -> RequestRecord {
    RequestRecord {
        outcome,
        error: Some(error.into()),
        http_status: (outcome == RequestOutcome::HttpError).then_some(503),
        finish_reason: None,
        prompt_tokens_reported: None,
        output_tokens_reported: None,
        ..record(index, sent, &[], 0)
    }
}

/// `times_ms`: started, full, stopped, ended.
pub(crate) fn facts(phase: &str, users: u32, times_ms: [i64; 4]) -> PhaseFacts {
    let [started, full, stopped, ended] = times_ms.map(ms);
    PhaseFacts {
        phase: name(phase),
        users,
        started,
        full_at: Some(full),
        stopped_at: stopped,
        ended,
        end: PhaseEnd::Finished,
        records: 0,
        client: ClientCost {
            user_cpu_s: 0.25,
            system_cpu_s: 0.15,
            max_rss_bytes: 24 << 20,
            loop_turns: 1000,
            max_turn_gap_ns: 3_200_000,
            reads: 5000,
            coalesced_reads: 12,
            clock_steps: 0,
            stalls: 0,
            read_lag_p99_ns: Some(131_072),
            open_files: Some(20_000),
            cpus: Some(2),
            niceness: Some(-10),
            loops: Some(1),
        },
        intended_cached: 0.0,
        dataset: None,
        classes: Vec::new(),
        stages: Vec::new(),
        open: None,
        tls: None,
        kernel_stamps: true,
    }
}

/// How fast a variant of the made-up run answers.
#[derive(Clone, Copy)]
struct Pace {
    ttft_ms: i64,
    gap_ms: i64,
}

/// A closed loop of `users` over `seconds`, 32 tokens a request, without think time.
fn phase(label: &str, users: u32, seconds: i64, pace: Pace) -> PhaseData {
    let stop = seconds * 1000;
    let (mut records, mut ended) = (Vec::new(), stop);
    for user in 0..users {
        let mut at = i64::from(user);
        let mut turn = 0;
        while at < stop {
            // Fixed irregularity: nothing here may depend on chance.
            let wobble = (i64::from(user) * 7 + i64::from(turn) * 13) % 29;
            let first = at + pace.ttft_ms + wobble;
            let chunks: Vec<i64> = (0..32).map(|n| first + n * pace.gap_ms + n % 3).collect();
            let mut request = record(0, ms(at), &chunks, 32);
            (request.user, request.turn, request.output_tokens_asked) = (user, turn, 32);
            at = *chunks.last().unwrap();
            (ended, turn) = (ended.max(at), turn + 1);
            records.push(request);
        }
    }
    records.sort_by_key(|record| record.sent);
    for (index, record) in records.iter_mut().enumerate() {
        record.index = u32::try_from(index).unwrap();
    }
    let mut facts = facts(label, users, [0, i64::from(users) - 1, stop, ended]);
    facts.records = records.len() as u64;
    let mut data = PhaseData::new(facts, records);
    data.engine = engine_samples(&data);
    data
}

fn attempt(number: u32, ending: Ending, phases: &[&str]) -> AttemptOutcome {
    let failed = ending != Ending::Completed;
    AttemptOutcome {
        format: crate::run::FORMAT,
        attempt: number,
        ending,
        started: "2026-03-02T01:00:00Z".into(),
        ended: "2026-03-02T01:01:30Z".into(),
        anchor: ClockAnchor { mono_ns: 0, realtime_ns: 0 },
        exit: Some(if failed { ExitStatus::Code(1) } else { ExitStatus::Signal(15) }),
        time_to_ready_ms: Some(2340 + u64::from(number) * 50),
        peak_host_memory_bytes: Some(412 << 20),
        signals: Vec::new(),
        kernel: None,
        teardown: Some(Teardown {
            verdict: if failed { TeardownVerdict::PortHeld } else { TeardownVerdict::Clean },
            leader_killed: false,
            strays_killed: u32::from(failed),
            took_ms: 180,
            detail: failed.then(|| "port 40123 was still bound after 10 s".into()),
            left: Vec::new(),
            shared_memory: SharedMemory::default(),
        }),
        effective: Some(effective(failed)),
        failed_phase: None,
        phases: phases.iter().map(|phase| name(phase)).collect(),
        searches: Vec::new(),
        timeline: Vec::new(),
    }
}

/// An engine that failed had been given less than it had asked for.
fn effective(clamped: bool) -> EffectiveConfig {
    let found = if clamped { "12" } else { "16" };
    let difference =
        Difference { name: "max_running".into(), asked: "16".into(), found: found.into() };
    EffectiveConfig {
        values: BTreeMap::from([
            ("dtype".into(), "float16".into()),
            ("max_running".into(), found.into()),
        ]),
        differences: if clamped { vec![difference] } else { Vec::new() },
        unknown: vec!["context".into()],
    }
}

/// A sample a second of an engine that is full.
fn engine_samples(phase: &PhaseData) -> Vec<EngineSample> {
    let seconds = phase.facts.ended.since(phase.facts.started).as_secs() + 1;
    let sample = |second: u64| EngineSample {
        at: phase.facts.started.plus(Duration::from_secs(second)),
        took_ns: 2_000_000,
        answered: second != 3,
        figures: match second {
            3 => BTreeMap::new(),
            _ => BTreeMap::from([
                (MetricName::RequestsRunning, f64::from(phase.facts.users)),
                (MetricName::KvCacheUsageRatio, 0.25),
                (MetricName::TtftSecondsSum, crate::units::count_f64(second) * 0.5),
                (MetricName::TtftSecondsCount, crate::units::count_f64(second) * 10.0),
            ]),
        },
    };
    (0..=seconds).map(sample).collect()
}

fn trial(block: u32, variant: &str, ending: Ending, phases: Vec<PhaseData>) -> TrialData {
    let labels: Vec<&str> = phases.iter().map(|phase| phase.facts.phase.as_str()).collect();
    let simulated = variant.starts_with("sim");
    let outcome = TrialOutcome {
        format: crate::run::FORMAT,
        run: RunId("night-20260302-010000".into()),
        trial: TrialId { block, variant: name(variant) },
        simulated,
        ending: ending.clone(),
        attempts: 1,
        beside: Vec::new(),
        phases: labels.iter().map(|phase| PhaseSource { phase: name(phase), attempt: 1 }).collect(),
        decisions: Vec::new(),
        started: format!("2026-03-02T01:{:02}:00Z", block * 10),
        ended: format!("2026-03-02T01:{:02}:30Z", block * 10 + 5),
    };
    TrialData { outcome, attempts: vec![attempt(1, ending, &labels)], phases, gpu: None }
}

fn variant(label: &str, slots: u32) -> VariantFacts {
    VariantFacts {
        name: name(label),
        engine: name("sim"),
        engine_version: Some("0.1.0".into()),
        simulated: true,
        model: "tiny".into(),
        params: vec![Fact { name: "slots".into(), value: slots.to_string() }],
        machine: MachineFacts::default(),
    }
}

const FAST: Pace = Pace { ttft_ms: 40, gap_ms: 9 };
const SLOW: Pace = Pace { ttft_ms: 55, gap_ms: 14 };

/// The engine dies after some 60 requests: one stream is cut, the rest are refused.
fn broken_off() -> PhaseData {
    let mut phase = phase("50-users", 50, 2, FAST);
    phase.facts.end = PhaseEnd::EngineGone;
    for record in phase.records.iter_mut().skip(60) {
        let (index, due) = (record.index, record.scheduled);
        *record = failed(index, due, RequestOutcome::Refused, "connection refused");
    }
    let cut = "the stream ended after 12 chunks";
    phase.records[55] = failed(55, ms(400), RequestOutcome::Cut, cut);
    phase
}

/// Every fortieth first text was read late.
fn client_limited() -> PhaseData {
    let mut phase = phase("50-users", 50, 12, SLOW);
    for record in phase.records.iter_mut().step_by(40) {
        record.chunks[0].earliest = MonoNs::new(record.chunks[0].at.get() - 4_000_000);
    }
    phase
}

fn out_of_memory() -> Ending {
    Ending::EngineFailed {
        failure: Failure {
            kind: FailureKind::GpuOomRuntime,
            during: "phase 50-users".into(),
            summary: "the GPU's memory ran out while requests were served".into(),
            evidence: vec![EvidenceLine {
                line: 812,
                text: "RuntimeError: CUDA out of memory. Tried to allocate 1.50 GiB".into(),
            }],
            advice: Some("lower `slots`, or shorten the prompts".into()),
            retries: None,
        },
    }
}

fn trials() -> Vec<TrialData> {
    let slower = Pace { gap_ms: 15, ..SLOW };
    let later = Pace { ttft_ms: 42, ..FAST };
    let done = || Ending::Completed;
    vec![
        trial(
            1,
            "sim-b",
            done(),
            vec![phase("10-users", 10, 12, FAST), phase("50-users", 50, 12, FAST)],
        ),
        trial(1, "sim-a", done(), vec![phase("10-users", 10, 12, SLOW), client_limited()]),
        trial(
            2,
            "sim-a",
            done(),
            vec![phase("10-users", 10, 8, slower), phase("50-users", 50, 12, slower)],
        ),
        trial(2, "sim-b", out_of_memory(), vec![phase("10-users", 10, 12, later), broken_off()]),
    ]
}

/// Two variants, two phases, two blocks; the second variant's last trial dies in its second phase.
pub(crate) fn run() -> RunData {
    let planned = |block, label| PlannedTrial { block, variant: name(label) };
    let plan = |label, users| PhasePlan {
        name: name(label),
        users,
        min_requests: 100,
        min_duration_s: 12.0,
        open: None,
    };
    RunData {
        run: RunId("night-20260302-010000".into()),
        sweep: name("night"),
        setup: Setup {
            endpoint: Endpoint::Completions,
            prompt_tokens: 10,
            output_tokens: 32,
            prompt_tokens_vary: false,
            output_tokens_vary: false,
            workload: None,
            blocks: 2,
            seed: 42,
            sampling: vec![SamplingParameter { name: "temperature".into(), value: 0.0 }],
            warmup_requests: 8,
            price: None,
            side_by_side: 1,
            cpus: Vec::new(),
        },
        host: vec![
            ("cpu".into(), "8 x Example CPU".into()),
            ("memory".into(), "32 GiB".into()),
            ("kernel".into(), "6.8.0".into()),
        ],
        variants: vec![variant("sim-a", 8), variant("sim-b", 16)],
        phases: vec![plan("10-users", 10), plan("50-users", 50)],
        provenance: None,
        planned: vec![
            planned(1, "sim-b"),
            planned(1, "sim-a"),
            planned(2, "sim-a"),
            planned(2, "sim-b"),
        ],
        smoke: vec![planned(0, "sim-a"), planned(0, "sim-b")],
        smoke_trials: vec![trial(0, "sim-a", Ending::Completed, Vec::new())],
        trials: trials(),
        searches: Vec::new(),
        calibration: None,
        version_changes: Vec::new(),
    }
}

/// The made-up run on one GPU of this bandwidth, with an 8B model.
pub(crate) fn with_a_machine(mut run: RunData, bandwidth_gb_s: f64) -> RunData {
    let config = Config::parse(include_bytes!("../physics/models/8b.json")).unwrap();
    let gpu = Gpu {
        name: "Z9".into(),
        fp16_tflops: 2000.0,
        fp8_tflops: None,
        int8_tops: None,
        memory_gb: None,
        bandwidth_gb_s,
        power_w: None,
        throttle_c: None,
        source: "made up".into(),
    };
    for variant in &mut run.variants {
        variant.machine = MachineFacts {
            hardware: Some(Hardware { gpu: gpu.clone(), count: 1, kv_cache_bits: None }),
            card: None,
            shape: config.shape().ok(),
            shape_unknown: None,
        };
    }
    run
}

/// What is known of one GPU of an attempt: an A40 that nothing happened to.
pub(crate) fn attempt_gpu() -> AttemptGpu {
    let gpu = OwnedGpu {
        uuid: "GPU-1".into(),
        index: 0,
        name: Some("NVIDIA A40".into()),
        card: None,
        power_default_w: Some(300.0),
        power_limit_w: Some(300.0),
        slowdown_c: Some(95),
        sm_clock_max_mhz: Some(1740),
        memory_before_bytes: None,
        memory_after_bytes: None,
        temperature_before_c: None,
        ecc_uncorrected_before: None,
        ecc_uncorrected_after: None,
    };
    AttemptGpu {
        format: crate::run::FORMAT,
        driver_version: Some("550.54.15".into()),
        gpus: vec![gpu],
        pin: Vec::new(),
        settings: Vec::new(),
        placement: Placement::Verified,
        foreign: Vec::new(),
        xids: Vec::new(),
        lost: None,
        gaps: Vec::new(),
        not_released: None,
        not_restored: Vec::new(),
    }
}
