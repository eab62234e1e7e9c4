//! From a sweep and a variant to everything one attempt needs. Pure.
//!
//! Invariant: what is sent to the engine depends on sweep seed, block, phase, user and turn, never
//! on the variant or the attempt: every variant meets the same prompts.

use super::attempt::search::Seeking;
use super::attempt::{AttemptPlan, ReadBack};
use super::gpu::Isolated;
use crate::engine::launch::{self, OwnEnvironment, SlotError, Slots};
use crate::engine::request::{self, Draft, NoSamplingField};
use crate::engine::rules::scan::ScanSpec;
use crate::ids::{Name, TrialId};
use crate::load::message::{LoadPattern, LoadPlan, PromptPlan, RequestPlan};
use crate::load::peer::Peer;
use crate::run::containment::Groups;
use crate::run::cpus::TrialCpus;
use crate::secrets;
use crate::seed::Seed;
use crate::store::dirs::AttemptDir;
use crate::supervise::guard::message::GuardSpec;
use crate::supervise::probe::ProbeTarget;
use crate::supervise::state::Limits;
use crate::supervise::user::RunAs;
use crate::sweep::dataset;
use crate::sweep::def::{Pattern, Phase, Sweep, Variant};
use crate::units::nanoseconds;
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Engines are reached here and nowhere else.
const HOST: &str = "127.0.0.1";
const LOG_HEAD_BYTES: u64 = 8 << 20;
const LOG_TAIL_BYTES: u64 = 8 << 20;
/// What the load process may need beyond its own deadlines: building prompts, writing records.
const LOAD_MARGIN: Duration = Duration::from_secs(120);
/// The last look at an engine that makes no progress.
const EXAMINE: Duration = Duration::from_secs(20);
/// For the load process to hand over its records, and for the guard to say its last word.
const STOP_MARGIN: Duration = Duration::from_secs(25);

/// Completes "cannot prepare the launch: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("{0}")]
    Slot(#[from] SlotError),
    #[error("{0}")]
    Sampling(#[from] NoSamplingField),
    #[error("engine `{engine}` has no {endpoint} endpoint")]
    NoEndpoint { engine: Name, endpoint: &'static str },
}

/// One attempt's place in everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) trial: &'a TrialId,
    /// Unique on this machine: strays are found, and killed, by it.
    pub(crate) marker: &'a str,
    pub(crate) port: u16,
    pub(crate) dir: &'a AttemptDir,
    /// The engine's working directory: that of the sweep file.
    pub(crate) cwd: &'a Path,
    pub(crate) sweepd: &'a Path,
    pub(crate) inherited: &'a BTreeMap<String, String>,
    /// Control groups made for this attempt.
    pub(crate) groups: &'a Groups,
    pub(crate) run_as: Option<&'a RunAs>,
    /// Those of the sweep's phases that this attempt drives.
    pub(crate) phases: &'a [Name],
    /// The GPUs that are its own.
    pub(crate) gpus: Option<&'a Isolated>,
    /// The CPUs that its processes are bound to.
    pub(crate) cpus: Option<&'a TrialCpus>,
}

pub(crate) fn attempt_plan(
    sweep: &Sweep,
    variant: &Variant,
    place: Place<'_>,
) -> Result<AttemptPlan, PrepareError> {
    let request = request_plan(sweep, variant)?;
    let parts = dataset::parts(sweep, place.trial.block);
    let load = |phase: &Phase, seed: Seed, deadline: Duration| LoadPlan {
        phase: phase.name.clone(),
        host: HOST.to_owned(),
        port: place.port,
        authority: format!("{HOST}:{}", place.port),
        peer: Peer::default(),
        request: request.clone(),
        prompts: PromptPlan {
            tokenizer: Some(variant.model.tokenizer.clone()),
            prompt_tokens: sweep.workload.prompt_tokens.get(),
            shape: sweep.workload.shape.clone(),
            seed: seed.value(),
            part: parts.get(&phase.name).copied(),
            // The warm-up's requests count nowhere.
            classes: if phase.name == Name::warmup() { Vec::new() } else { sweep.classes.clone() },
        },
        users: phase.users.get(),
        loops: sweep.loops.get(),
        min_requests: phase.min_requests,
        max_requests: None,
        min_duration_ns: nanoseconds(phase.min_duration),
        pattern: load_pattern(phase, seed, place.dir),
        phase_deadline_ns: nanoseconds(deadline),
        request_deadline_ns: nanoseconds(sweep.deadlines.request),
        stall_ns: nanoseconds(sweep.deadlines.stall),
        keep_alive_ns: nanoseconds(variant.engine.request.keep_alive),
        records: place.dir.frames(phase.name.as_str()),
    };
    // Warm-up draws from a stream of its own, so that it feeds no prefix cache.
    let warm_seed = sweep.seed.branch("warm-up").nth(place.trial.block.into());
    let (phases, searches) = phases(sweep, place, load);
    Ok(AttemptPlan {
        guard: guard_spec(sweep, variant, place)?,
        port: place.port,
        probe: probe_target(sweep, variant, place.port, &request)?,
        warmup: warmup(sweep).map(|phase| load(&phase, warm_seed, sweep.deadlines.warmup)),
        phases,
        searches,
        dumper: dumper(place.inherited),
        limits: Limits { phases: place.phases.len(), ..limits(sweep, variant) },
        client_cpus: place.cpus.and_then(|cpus| cpus.client.clone()),
        readback: ReadBack { engine: Arc::clone(&variant.engine), params: variant.params.clone() },
    })
}

/// What this attempt drives: its phases, and the first run of each search.
fn phases(
    sweep: &Sweep,
    place: Place<'_>,
    load: impl Fn(&Phase, Seed, Duration) -> LoadPlan,
) -> (Vec<LoadPlan>, Vec<Seeking>) {
    let prompts = sweep.seed.branch("prompts").nth(place.trial.block.into());
    let (mut phases, mut searches) = (Vec::new(), Vec::new());
    for phase in sweep.phases.iter().filter(|phase| place.phases.contains(&phase.name)) {
        let plan = load(phase, prompts.branch(phase.name.as_str()), sweep.deadlines.phase);
        if let Pattern::Search(search) = &phase.pattern {
            let seeking = Seeking::new(search, plan, prompts, place.dir);
            phases.extend(seeking.first());
            searches.push(seeking);
        } else {
            phases.push(plan);
        }
    }
    (phases, searches)
}

/// As a shell would find it.
fn dumper(inherited: &BTreeMap<String, String>) -> Option<PathBuf> {
    let path = inherited.get("PATH")?;
    std::env::split_paths(path).map(|folder| folder.join("py-spy")).find(|file| file.is_file())
}

fn load_pattern(phase: &Phase, seed: Seed, dir: &AttemptDir) -> LoadPattern {
    match &phase.pattern {
        Pattern::Closed { think_time, ramp_up } => LoadPattern::Closed {
            think_time_ns: nanoseconds(*think_time),
            ramp_up_ns: nanoseconds(*ramp_up),
        },
        Pattern::Search(_) => LoadPattern::CLOSED,
        Pattern::Open(schedule) => LoadPattern::Open {
            schedule: schedule.clone(),
            seed: seed.value(),
            kept: dir.schedule(phase.name.as_str()),
        },
    }
}

/// The warm-up as a phase; no name of a user's phase can be the same, for it starts with a dot.
fn warmup(sweep: &Sweep) -> Option<Phase> {
    let requests = sweep.warmup.requests;
    (requests > 0).then(|| Phase {
        name: Name::warmup(),
        users: sweep.warmup.users,
        min_requests: requests,
        min_duration: Duration::ZERO,
        pattern: Pattern::CLOSED,
    })
}

fn request_plan(sweep: &Sweep, variant: &Variant) -> Result<RequestPlan, PrepareError> {
    let tokens = sweep.workload.output_tokens;
    Ok(RequestPlan {
        path: endpoint_path(sweep, variant)?,
        draft: draft(sweep, variant, tokens)?,
        output_tokens: tokens.get(),
        done_marker: variant.engine.request.done_marker,
    })
}

fn draft(sweep: &Sweep, variant: &Variant, tokens: NonZeroU32) -> Result<Draft, NoSamplingField> {
    let (endpoint, model) = (sweep.workload.endpoint, &variant.model.served_name);
    let (name, shape) = (variant.engine.name.as_str(), &variant.engine.request);
    request::draft(name, shape, endpoint, model, &sweep.sampling.0, tokens)
}

fn endpoint_path(sweep: &Sweep, variant: &Variant) -> Result<String, PrepareError> {
    let endpoint = sweep.workload.endpoint;
    let path = variant.engine.endpoints.path(endpoint).map(str::to_owned);
    let engine = variant.engine.name.clone();
    path.ok_or(PrepareError::NoEndpoint { engine, endpoint: endpoint.name() })
}

fn probe_target(
    sweep: &Sweep,
    variant: &Variant,
    port: u16,
    request: &RequestPlan,
) -> Result<ProbeTarget, PrepareError> {
    let mut draft = draft(sweep, variant, NonZeroU32::MIN)?;
    draft.body.insert("stream".into(), Value::Bool(false));
    draft.body.remove("stream_options");
    Ok(ProbeTarget {
        base: format!("http://{HOST}:{port}"),
        ready_path: variant.engine.ready.path.clone(),
        models_path: variant.engine.endpoints.models.clone(),
        served_name: variant.model.served_name.clone(),
        generate_path: request.path.clone(),
        draft,
    })
}

/// What stands for the placeholders of an engine's file.
pub(crate) fn slots<'a>(variant: &'a Variant, port: u16, sweepd: &'a Path) -> Slots<'a> {
    Slots {
        program: variant.program.as_deref().or(variant.engine.program.as_deref()),
        model: &variant.model.path,
        served_name: &variant.model.served_name,
        host: HOST,
        port,
        gpus: None,
        sweepd,
        python: variant.python.as_deref(),
    }
}

/// The variant's whole environment.
pub(crate) fn environment(
    variant: &Variant,
    inherited: &BTreeMap<String, String>,
    slots: &Slots<'_>,
) -> Result<BTreeMap<String, String>, SlotError> {
    let own = OwnEnvironment { env: &variant.env, env_pass: &variant.env_pass };
    launch::environment(&variant.engine, own, inherited, slots)
}

fn guard_spec(sweep: &Sweep, variant: &Variant, place: Place<'_>) -> Result<GuardSpec, SlotError> {
    let slots =
        Slots { gpus: place.gpus.map(Isolated::list), ..slots(variant, place.port, place.sweepd) };
    let mut env = environment(variant, place.inherited, &slots)?;
    if let Some(user) = place.run_as {
        at_home(&mut env, variant, user);
    }
    // Nothing that was passed on or set elsewhere may send the engine to another GPU.
    env.extend(place.gpus.map(|gpus| gpus.pin().to_vec()).unwrap_or_default());
    // From here on, every file that this process writes leaves them out.
    secrets::learn(secrets_of(variant, &env));
    Ok(GuardSpec {
        marker: place.marker.to_owned(),
        argv: launch::argv(&variant.engine, &variant.params, &variant.args, &slots)?,
        env: env.into_iter().collect(),
        groups: place.groups.clone(),
        run_as: place.run_as.cloned(),
        cpus: place.cpus.and_then(|cpus| cpus.engine.clone()),
        secrets: secrets::known(),
        cwd: place.cwd.to_owned(),
        log: place.dir.log(),
        log_head_bytes: LOG_HEAD_BYTES,
        log_tail_bytes: LOG_TAIL_BYTES,
        scan: ScanSpec::new(&variant.engine.log),
        stop_signal: variant.engine.stop.signal,
        grace_ms: milliseconds(grace(sweep, variant)),
        kill_ms: milliseconds(sweep.deadlines.verify),
    })
}

/// Another user's engine finds that user's folders, not root's, unless the sweep says otherwise.
fn at_home(env: &mut BTreeMap<String, String>, variant: &Variant, user: &RunAs) {
    let home = user.home.display().to_string();
    for (name, value) in [("HOME", &home), ("USER", &user.name), ("LOGNAME", &user.name)] {
        if !variant.env.contains_key(name) {
            env.insert(name.to_owned(), value.clone());
        }
    }
    if !variant.env.contains_key("XDG_CACHE_HOME") {
        env.remove("XDG_CACHE_HOME");
    }
}

/// In its environment and in its parameters.
fn secrets_of(variant: &Variant, env: &BTreeMap<String, String>) -> Vec<String> {
    let env = env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut found = secrets::among(env);
    for (name, value) in &variant.params {
        found.extend(secrets::among([(name.as_str(), value.to_string().as_str())]));
    }
    found
}

fn grace(sweep: &Sweep, variant: &Variant) -> Duration {
    sweep.deadlines.stop.unwrap_or(variant.engine.stop.grace)
}

fn limits(sweep: &Sweep, variant: &Variant) -> Limits {
    let deadlines = &sweep.deadlines;
    Limits {
        launch: deadlines.launch,
        load: deadlines.load.unwrap_or(variant.engine.ready.within),
        ready: deadlines.ready,
        warmup: deadlines.warmup + LOAD_MARGIN,
        phase: deadlines.phase + LOAD_MARGIN,
        examine: EXAMINE,
        stop: grace(sweep, variant) + deadlines.verify + STOP_MARGIN,
        verify: deadlines.verify,
        stall: deadlines.stall,
        phases: sweep.phases.len(),
        warm_up: sweep.warmup.requests > 0,
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
