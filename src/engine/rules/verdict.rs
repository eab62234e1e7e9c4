//! Weighs what the log says against what was seen from outside.
//!
//! The order: what the kernel did; a root cause in the log; a symptom that cannot be mistaken; a
//! likely cause in the log; a symptom or an exception of which nothing more is known; what only
//! followed.

use super::normal::message;
use super::reading::{Found, Matcher};
use super::rule::{LogPhase, RuleRole};
use super::scan::Scanner;
use super::symptom::{Finding, Strength, Symptom, finding};
use crate::run::outcome::{EvidenceLine, ExitStatus, Failure, FailureKind};
use serde::Serialize;

/// Held by others, it explains that an engine found too little.
const GPU_HELD_BYTES: u64 = 1 << 30;

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Confidence {
    Low,
    Medium,
    High,
}

/// Why an engine failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) kind: FailureKind,
    /// What it said itself, or what was seen.
    pub(crate) root_cause: String,
    /// One sentence for the reader of a report.
    pub(crate) summary: String,
    pub(crate) evidence: Vec<EvidenceLine>,
    pub(crate) advice: Option<String>,
    /// How many more launches the deciding rule says it is worth.
    pub(crate) retries: Option<u32>,
    pub(crate) confidence: Confidence,
}

/// Why the engine failed, for an attempt that did fail.
pub(crate) fn diagnose(log: &Matcher, symptom: &Symptom, during: &str) -> Failure {
    let seen = finding(symptom, log.exits());
    let judged = weigh(log, Some(&seen)).unwrap_or_else(|| of_symptom(log, &seen));
    let Judgement { kind, summary, evidence, advice, retries, .. } = judged;
    Failure { kind, during: during.to_owned(), summary, evidence, advice, retries }
}

/// The same where it is not known that anything failed: `None` when nothing says so.
pub(crate) fn judge(log: &Matcher, symptom: Option<&Symptom>) -> Option<Judgement> {
    let seen = symptom.map(|symptom| finding(symptom, log.exits()));
    weigh(log, seen.as_ref())
}

/// What is known of an end from outside: a status, or only when it came.
pub(crate) fn symptom_of(
    status: Option<ExitStatus>,
    phase: Option<LogPhase>,
    log: &Scanner,
) -> Option<Symptom> {
    // Exit code 0 is no sign of a failure; it is no proof of health either.
    let status = status.filter(|status| *status != ExitStatus::Code(0));
    let was_ready = phase >= Some(LogPhase::Serving);
    let unfinished = phase.is_some() && !was_ready && log.ends_while_starting();
    match status {
        Some(status) => Some(Symptom::Exited { status, was_ready }),
        None => unfinished.then_some(Symptom::NeverReady),
    }
}

fn weigh(log: &Matcher, seen: Option<&Finding>) -> Option<Judgement> {
    if let Some(killed) = of_kernel(log, seen) {
        return Some(killed);
    }
    let strength = seen.map(|seen| seen.strength);
    let of_log = |role, confidence| log.found(role).map(|f| of_line(log, f, seen, confidence));
    let of_seen = |least| {
        seen.filter(|_| strength.is_some_and(|strength| strength >= least))
            .map(|seen| of_symptom(log, seen))
    };
    of_log(RuleRole::Root, Confidence::High)
        .or_else(|| of_seen(Strength::Sure))
        .or_else(|| of_log(RuleRole::Likely, Confidence::Medium))
        .or_else(|| of_log(RuleRole::Residual, Confidence::Low))
        .or_else(|| of_seen(Strength::Fair))
        .or_else(|| of_log(RuleRole::Cascade, Confidence::Low))
        .or_else(|| of_seen(Strength::Weak))
}

/// What the kernel says of a process or a GPU is so, whatever the engine made of it.
fn of_kernel(log: &Matcher, seen: Option<&Finding>) -> Option<Judgement> {
    if let Some(kills @ 1..) = log.oom_kills {
        let deciding = log.found(RuleRole::Root).map(|found| found.line);
        return Some(Judgement {
            kind: FailureKind::HostOom,
            root_cause: format!("the kernel killed {kills} of its processes: out of memory"),
            summary: "the kernel killed it: the memory it may use was full".to_owned(),
            evidence: log.evidence(deciding),
            advice: Some(
                "give it more memory, or load fewer and smaller things at a time".to_owned(),
            ),
            retries: None,
            confidence: Confidence::High,
        });
    }
    let kernel = log.kernel()?;
    let certain = [FailureKind::HostOom, FailureKind::XidOrHwFault].contains(&kernel.rule.kind);
    (certain || log.found(RuleRole::Root).is_none())
        .then(|| of_line(log, kernel, seen, Confidence::High))
}

fn of_line(
    log: &Matcher,
    found: Found<'_>,
    seen: Option<&Finding>,
    confidence: Confidence,
) -> Judgement {
    let Found { rule, line } = found;
    let root_cause = message(&line.text).trim().to_owned();
    let says = match line.line {
        0 => "the kernel's log says why".to_owned(),
        line => format!("line {line} of its log says why"),
    };
    let summary = seen.map_or_else(|| says.clone(), |seen| format!("{}; {says}", seen.summary));
    let judged = Judgement {
        kind: rule.kind,
        root_cause,
        summary,
        evidence: log.evidence(Some(line)),
        advice: rule.advice.clone(),
        retries: rule.retries,
        confidence,
    };
    not_by_the_kernel(log, rule.role, crowded_out(log, judged))
}

/// Too little memory, because others held it: telemetry decides what a log cannot tell apart.
fn crowded_out(log: &Matcher, judged: Judgement) -> Judgement {
    let too_little =
        [FailureKind::GpuOomWeights, FailureKind::GpuOomKvCache].contains(&judged.kind);
    match log.gpu_bytes_of_others {
        Some(bytes) if too_little && bytes >= GPU_HELD_BYTES => Judgement {
            kind: FailureKind::GpuBusyOrLeaked,
            summary: format!(
                "{}; other processes held {:.1} GiB of its GPUs",
                judged.summary,
                bytes as f64 / f64::from(1 << 30)
            ),
            advice: Some("end what else uses these GPUs: `nvidia-smi` lists it".to_owned()),
            ..judged
        },
        _ => judged,
    }
}

/// "Killed" mostly means that memory was full; where the kernel counts such kills and has none, it
/// does not.
fn not_by_the_kernel(log: &Matcher, role: RuleRole, judged: Judgement) -> Judgement {
    let guessed = judged.kind == FailureKind::HostOom && role != RuleRole::Root;
    if !guessed || log.oom_kills != Some(0) {
        return judged;
    }
    Judgement {
        kind: FailureKind::ExitedUnexpectedly,
        advice: Some(
            "it was killed from outside, and not by the kernel for want of memory".to_owned(),
        ),
        ..judged
    }
}

fn of_symptom(log: &Matcher, seen: &Finding) -> Judgement {
    let confidence = match seen.strength {
        Strength::Sure => Confidence::High,
        Strength::Fair => Confidence::Medium,
        Strength::Weak => Confidence::Low,
    };
    Judgement {
        kind: seen.kind,
        root_cause: seen.summary.clone(),
        summary: seen.summary.clone(),
        evidence: log.evidence(None),
        advice: seen.advice.clone(),
        retries: None,
        confidence,
    }
}
