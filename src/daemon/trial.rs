//! One trial: attempts until one counts, then `outcome.json`, last of all.

use super::attempt::search;
use super::attempt::{self, AttemptPlan, Beside, StopRequests};
use super::finding::Finding;
use super::gpu::{self, Isolated, Isolation};
use super::order::Context;
use super::policy::Course;
use super::prepare::{self, Place};
use super::progress::Progress;
use super::verdict;
use crate::clock;
use crate::engine::def::EngineSource;
use crate::engine::launch;
use crate::ids::{Name, TrialId};
use crate::run::FORMAT;
use crate::run::containment::Containment;
use crate::run::cpus::TrialCpus;
use crate::run::decision::{Choice, Decision};
use crate::run::outcome::{AttemptOutcome, Ending, TrialOutcome};
use crate::secrets;
use crate::store::dirs::AttemptDir;
use crate::store::files::{self, StoreError};
use crate::supervise::state::Event;
use crate::supervise::user::RunAs;
use crate::supervise::{cgroup, ports};
use crate::sweep::containment;
use crate::sweep::def::Variant;
use crate::units::ClockAnchor;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// Which of how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) number: usize,
    pub(crate) of: usize,
    /// How long it and those behind it still take; `None` while that is not known.
    pub(crate) left: Option<Duration>,
}

/// A trial that is not worth its time: nothing is launched.
pub(crate) fn skip(
    context: &Context<'_>,
    variant: &Variant,
    trial: &TrialId,
    choice: Choice,
    because: String,
) -> Result<TrialOutcome, StoreError> {
    let now = clock::wall_time();
    let decision = Decision { at: now.clone(), attempt: None, choice, because: because.clone() };
    let outcome = TrialOutcome {
        format: FORMAT,
        run: context.run.clone(),
        trial: trial.clone(),
        simulated: variant.engine.simulated,
        ending: Ending::Skipped { reason: because },
        attempts: context.dir.last_attempt(trial)?,
        beside: Vec::new(),
        phases: Vec::new(),
        decisions: vec![decision],
        started: now.clone(),
        ended: now,
    };
    finish(context, outcome)
}

fn say_started(context: &Context<'_>, number: Number, attempt: u32) {
    context.watcher.say(Progress::TrialStarted {
        number: number.number,
        of: number.of,
        left: number.left,
        attempt,
    });
}

/// Its outcome is the last of a trial's files.
fn finish(context: &Context<'_>, outcome: TrialOutcome) -> Result<TrialOutcome, StoreError> {
    // An interrupted trial has no outcome: it is run again.
    if !matches!(outcome.ending, Ending::Interrupted { .. }) {
        context.dir.finish_trial(&outcome.trial, &outcome)?;
    }
    tracing::info!(run = %context.run, trial = %outcome.trial, ending = ?outcome.ending, "trial ended");
    context.watcher.say(Progress::TrialEnded { outcome: Box::new(outcome.clone()) });
    Ok(outcome)
}

/// Runs one trial. An error is sweepd's own: nothing could be stored.
pub(crate) async fn run(
    context: &Context<'_>,
    variant: &Variant,
    trial: &TrialId,
    number: Number,
) -> Result<TrialOutcome, StoreError> {
    let started = clock::wall_time();
    let stop = context.stopping.requests();
    let mut course = Course::new(&context.sweep.phases, context.sweep.policy);
    // A number is never used twice: the files of an interrupted attempt stay.
    let mut count = context.dir.last_attempt(trial)?;
    let last = loop {
        count += 1;
        say_started(context, number, count);
        let attempt =
            run_attempt(context, variant, trial, count, course.left(), stop.clone()).await?;
        let again = course.after(&attempt, &clock::wall_time());
        if !again || context.stopping.is_asked() {
            break attempt;
        }
    };
    let outcome = TrialOutcome {
        format: FORMAT,
        run: context.run.clone(),
        trial: trial.clone(),
        simulated: variant.engine.simulated,
        ending: course.ending(last.ending),
        attempts: count,
        beside: context.turn.beside(),
        phases: course.measured,
        decisions: course.decisions,
        started,
        ended: clock::wall_time(),
    };
    finish(context, outcome)
}

async fn run_attempt(
    context: &Context<'_>,
    variant: &Variant,
    trial: &TrialId,
    count: u32,
    phases: &[Name],
    mut stop: StopRequests,
) -> Result<AttemptOutcome, StoreError> {
    let dir = context.dir.create_attempt(trial, count)?;
    let (started, anchor) = (clock::wall_time(), clock::anchor());
    let (run, sweepd) = (context.run, std::process::id());
    // Two runs of one name may begin in the same second, but not in the same nanosecond and process.
    let marker = format!("{run}/{trial}/{count}/{sweepd}.{}", anchor.mono_ns);
    let start = u64::try_from(anchor.mono_ns / 1_000).unwrap_or(0);
    let need = gpu::Need {
        machine: context.machine,
        sweep: context.sweep,
        variant,
        run: context.run,
        trial,
        marker: &marker,
        folder: &dir.path,
        inherited: context.inherited,
        watcher: context.watcher,
        side: context.side,
    };
    let mut finding = match gpu::isolate(need, &mut stop).await {
        Err(refused) => {
            let mut finding = Finding::empty(refused.why);
            finding.note(anchor, refused.notes);
            finding
        }
        Ok(isolation) => {
            let here =
                Here { context, variant, trial, count, phases, dir: &dir, marker: &marker, anchor };
            on_gpus(here, isolation, start, stop).await?
        }
    };
    let ending = verdict::ending(&finding, &variant.engine.log, context.version(&variant.name));
    let ending = context.stopping.in_its_words(ending);
    let found = std::mem::take(&mut finding.searches);
    let searches = search::ended(found, finding.failed_phase.as_ref(), &ending);
    let outcome = AttemptOutcome {
        format: FORMAT,
        attempt: count,
        ending,
        started,
        ended: clock::wall_time(),
        anchor,
        exit: finding.exit,
        time_to_ready_ms: finding
            .time_to_ready
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        peak_host_memory_bytes: finding.peak_memory_bytes,
        signals: finding.signals.clone(),
        kernel: finding.report.as_ref().map(|report| report.kernel.clone()),
        teardown: verdict::teardown(&finding),
        effective: finding.effective,
        failed_phase: finding.failed_phase,
        searches,
        phases: finding.phases.into_iter().map(|facts| facts.phase).collect(),
        timeline: finding.timeline,
    };
    dir.write_outcome(&outcome)?;
    Ok(outcome)
}

/// What holds an engine, made before it is launched.
struct Contained {
    facts: Containment,
    run_as: Option<RunAs>,
}

impl Contained {
    fn make(wanted: &containment::Containment) -> Result<Self, String> {
        let find = |name: &String| RunAs::find(name).map_err(|why| format!("`run_as` {why}"));
        let run_as = wanted.run_as.as_ref().map(find).transpose()?;
        let mut facts = cgroup::make(wanted.memory_max_bytes)?;
        facts.run_as = run_as.as_ref().map(|user| user.name.clone());
        Ok(Self { facts, run_as })
    }
}

async fn launch(
    here: Here<'_>,
    place: Place<'_>,
    contained: &Contained,
    beside: Beside<'_>,
    stop: StopRequests,
) -> Result<Finding, StoreError> {
    let Here { context, variant, count, anchor, .. } = here;
    match prepare::attempt_plan(context.sweep, variant, place) {
        Err(error) => {
            cgroup::remove_empty(&contained.facts.groups);
            Ok(Finding::never_began(format!("cannot prepare the launch: {error}")))
        }
        Ok(plan) => {
            let facts = &contained.facts;
            write_manifest(context, variant, place, count, &plan, facts, anchor)?;
            Ok(attempt::run(&plan, place.dir, context.watcher, beside, stop).await)
        }
    }
}

/// One attempt's place.
#[derive(Clone, Copy)]
struct Here<'a> {
    context: &'a Context<'a>,
    variant: &'a Variant,
    trial: &'a TrialId,
    count: u32,
    /// Those of the sweep's phases that this attempt drives.
    phases: &'a [Name],
    dir: &'a AttemptDir,
    marker: &'a str,
    anchor: ClockAnchor,
}

/// The attempt on the GPUs that it owns, if any, and their way back.
async fn on_gpus(
    here: Here<'_>,
    isolation: Isolation,
    start: u64,
    stop: StopRequests,
) -> Result<Finding, StoreError> {
    let (mut isolated, no_gpu) = match isolation {
        Isolation::Owned(isolated) => (Some(isolated), None),
        Isolation::None(reason) => (None, reason),
    };
    let alarms = isolated.as_mut().and_then(|isolated| isolated.take_alarms());
    let launched_at = clock::now();
    let result = launch_on(here, isolated.as_deref(), alarms, start, stop).await;
    // Whatever came of it, the GPUs are given back.
    let launched = result.as_ref().map_or(true, |finding| finding.launched);
    let released = match isolated {
        Some(isolated) => {
            let survivors = result.as_ref().ok().and_then(verdict::survivors);
            Some(isolated.release(launched, survivors).await)
        }
        None => None,
    };
    let mut finding = result?;
    finding.shift(here.anchor);
    finding
        .note(here.anchor, no_gpu.map(|text| (launched_at, format!("no GPU telemetry: {text}"))));
    if let Some(released) = released {
        finding.note(here.anchor, released.notes.iter().cloned());
        let samples = gpu::store(&released, &finding.phases, here.dir)?;
        let silence = finding.silence;
        let seen = silence.and_then(|(from, to)| attempt::gpus_seen(&samples, from, to));
        finding.signals.extend(seen);
        finding.circumstances.gpu_bytes_of_others = released.bytes_of_others;
        finding.gpu_not_released = released.facts.not_released;
    }
    Ok(finding)
}

async fn launch_on(
    here: Here<'_>,
    gpus: Option<&Isolated>,
    alarms: Option<UnboundedReceiver<Event>>,
    start: u64,
    stop: StopRequests,
) -> Result<Finding, StoreError> {
    let Here { context, variant, trial, dir, marker, .. } = here;
    // Kept until the attempt is over: another one may look for ports before this engine listens.
    let Some(ports) = ports::choose(start, launch::ports(&variant.engine)) else {
        return Ok(Finding::never_began("no free port was found".into()));
    };
    let contained = match Contained::make(&context.sweep.containment) {
        Ok(contained) => contained,
        Err(error) => {
            return Ok(Finding::never_began(format!("cannot contain the engine: {error}")));
        }
    };
    let place = Place {
        trial,
        marker,
        port: ports.first,
        dir,
        cwd: context.cwd,
        sweepd: context.sweepd,
        inherited: context.inherited,
        groups: &contained.facts.groups,
        run_as: contained.run_as.as_ref(),
        gpus,
        cpus: context.sweep.lanes.cpus(context.turn.lane),
        phases: here.phases,
    };
    let leases = gpus.map(Isolated::leases).unwrap_or_default();
    let beside = Beside {
        keep: leases.iter().map(AsFd::as_fd).collect(),
        // Without GPUs there is nobody to raise one.
        alarms: alarms.unwrap_or_else(|| mpsc::unbounded_channel().1),
    };
    launch(here, place, &contained, beside, stop).await
}

/// `manifest.json`: what was launched, exactly, with secrets left out.
#[derive(Debug, Serialize)]
struct Manifest<'a> {
    format: u32,
    run: &'a str,
    trial: &'a TrialId,
    attempt: u32,
    engine: &'a str,
    engine_file: String,
    engine_version: Option<&'a str>,
    simulated: bool,
    argv: &'a [String],
    env: BTreeMap<&'a str, &'a str>,
    cwd: &'a Path,
    port: u16,
    model: &'a Path,
    model_bytes: Option<u64>,
    tokenizer: &'a Path,
    /// `SWEEPD_ATTEMPT` in the environment of all its processes.
    marker: &'a str,
    /// What holds the engine's processes together.
    containment: &'a Containment,
    /// What its processes are bound to; null: nothing.
    cpus: Option<&'a TrialCpus>,
    /// Of those in which trials run side by side, from 1; null where one runs at a time.
    lane: Option<usize>,
    /// Trials that were under way when it was launched; more may have come: see the trial's outcome.
    beside: Vec<TrialId>,
    anchor: ClockAnchor,
}

fn write_manifest(
    context: &Context<'_>,
    variant: &Variant,
    place: Place<'_>,
    attempt: u32,
    plan: &AttemptPlan,
    containment: &Containment,
    anchor: ClockAnchor,
) -> Result<(), StoreError> {
    let size = |path: &Path| std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.len());
    let manifest = Manifest {
        format: FORMAT,
        run: &context.run.0,
        trial: place.trial,
        attempt,
        engine: variant.engine.name.as_str(),
        engine_file: match &variant.engine.source {
            EngineSource::BuiltIn => "built in".to_owned(),
            EngineSource::File(path) => path.display().to_string(),
        },
        engine_version: context.version(&variant.name),
        simulated: variant.engine.simulated,
        argv: &plan.guard.argv,
        env: redacted(&plan.guard.env),
        cwd: &plan.guard.cwd,
        port: plan.port,
        model: &variant.model.path,
        model_bytes: size(&variant.model.path),
        tokenizer: &variant.model.tokenizer,
        marker: &plan.guard.marker,
        containment,
        cpus: place.cpus,
        lane: (context.side.lanes.get() > 1).then_some(context.turn.lane + 1),
        beside: context.turn.beside(),
        anchor,
    };
    files::write_json(&place.dir.path.join("manifest.json"), &manifest)
}

/// Values of variables whose names speak of secrets are never written anywhere.
fn redacted(env: &[(String, String)]) -> BTreeMap<&str, &str> {
    let shown = |name: &str| secrets::is_secret(name).then_some(secrets::HIDDEN);
    env.iter().map(|(name, value)| (name.as_str(), shown(name).unwrap_or(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_by_name() {
        let env = [("HF_TOKEN".to_owned(), "hf_x".to_owned()), ("LANG".into(), "C".into())];
        let got = redacted(&env);
        assert_eq!(got["HF_TOKEN"], "[redacted]");
        assert_eq!(got["LANG"], "C");
    }
}
