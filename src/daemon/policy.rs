//! What follows from an attempt's end, and whether a trial is worth its time at all. Pure.
//!
//! Three classes of failures: those that cannot change (a wrong flag) skip the variant's other
//! trials; those from outside the variant (a port taken) are tried again, a stated number of times;
//! running out of memory or time under load is the variant's limit, a result. Everything else ends
//! the trial and leaves the others alone, until the breaker opens.
//!
//! Invariant: each phase is measured, a limit, skipped or left at the end of a trial, and the number
//! of attempts is bounded: each one ends the trial, uses up a retry or takes at least one phase away.

use crate::ids::{Name, TrialId, wire_name};
use crate::run::decision::{Choice, Decision};
use crate::run::outcome::{
    AttemptOutcome, Ending, Failure, FailureKind, PhaseSource, TrialOutcome,
};
use crate::run::search::SearchEnd;
use crate::sweep::def::{Pattern, Phase};
use crate::sweep::policy::Policy;
use crate::workload::schedule::OpenLoop;
use std::collections::BTreeMap;

/// What sweepd does about a kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The next trial would fail in the same way.
    Permanent,
    /// From outside the variant: worth so many more launches.
    Passing {
        retries: u32,
    },
    /// Under load, what the variant can bear.
    Limit,
    Other,
}

fn class(kind: FailureKind, under_load: bool) -> Class {
    use FailureKind as Kind;
    match kind {
        Kind::BadFlag
        | Kind::BadConfig
        | Kind::ModelNotFound
        | Kind::ModelGatedOrAuth
        | Kind::UnsupportedModelOrArch
        | Kind::DependencyImportError
        | Kind::CudaDriverMismatch
        | Kind::NoGpu
        | Kind::TokenizerOrTemplateError
        | Kind::PermissionDenied
        | Kind::CannotLaunch
        | Kind::GpuOomWeights
            if !under_load =>
        {
            Class::Permanent
        }
        Kind::GpuOomKvCache if !under_load => Class::Permanent,
        Kind::PortInUse => Class::Passing { retries: 2 },
        Kind::GpuBusyOrLeaked | Kind::KilledByUser | Kind::ProxyOrNetwork => {
            Class::Passing { retries: 1 }
        }
        Kind::GpuOomRuntime
        | Kind::GpuOomKvCache
        | Kind::HostOom
        | Kind::RequestTimeout
        | Kind::WatchdogTimeout
            if under_load =>
        {
            Class::Limit
        }
        _ => Class::Other,
    }
}

/// A trial that is under way: what has become of its phases.
#[derive(Debug)]
pub(crate) struct Course<'s> {
    policy: Policy,
    phases: &'s [Phase],
    /// Not measured yet, in the sweep's order.
    left: Vec<Name>,
    pub(crate) measured: Vec<PhaseSource>,
    retries: BTreeMap<FailureKind, u32>,
    /// The first failure that was a limit.
    limit: Option<Failure>,
    pub(crate) decisions: Vec<Decision>,
}

impl<'s> Course<'s> {
    pub(crate) fn new(phases: &'s [Phase], policy: Policy) -> Self {
        Self {
            policy,
            phases,
            left: phases.iter().map(|phase| phase.name.clone()).collect(),
            measured: Vec::new(),
            retries: BTreeMap::new(),
            limit: None,
            decisions: Vec::new(),
        }
    }

    /// The phases of the next attempt.
    pub(crate) fn left(&self) -> &[Name] {
        &self.left
    }

    /// Takes in an attempt that has ended. True: another one is to be made.
    pub(crate) fn after(&mut self, attempt: &AttemptOutcome, at: &str) -> bool {
        let failed_in = attempt.failed_phase.as_ref();
        for phase in &attempt.phases {
            self.measured.retain(|source| source.phase != *phase);
            let source = PhaseSource { phase: phase.clone(), attempt: attempt.attempt };
            self.measured.push(source);
            if failed_in != Some(phase) {
                self.left.retain(|left| left != phase);
            }
        }
        for search in &attempt.searches {
            // One that came to a result is done; one that was broken off begins again.
            if search.end != SearchEnd::BrokenOff {
                self.left.retain(|left| *left != search.search);
            }
        }
        let Ending::EngineFailed { failure } = &attempt.ending else {
            let why = attempt.ending.reason().unwrap_or("every phase was measured").to_owned();
            self.decide(attempt, at, Choice::End, why);
            return false;
        };
        let class = class(failure.kind, failed_in.is_some());
        match (class, failure.retries) {
            // What an engine's file says of its own failure is the better knowledge.
            (_, Some(of)) | (Class::Passing { retries: of }, None) => {
                let of = self.policy.retries.unwrap_or(of);
                self.try_again(attempt, failure, of, at)
            }
            (Class::Limit, None) => match failed_in {
                Some(phase) => self.limit(attempt, failure, &phase.clone(), at),
                None => self.end(attempt, failure, at),
            },
            (Class::Permanent | Class::Other, None) => self.end(attempt, failure, at),
        }
    }

    fn end(&mut self, attempt: &AttemptOutcome, failure: &Failure, at: &str) -> bool {
        let why = format!("{} ends a trial: {}", wire_name(&failure.kind), failure.summary);
        self.decide(attempt, at, Choice::End, why);
        false
    }

    fn try_again(
        &mut self,
        attempt: &AttemptOutcome,
        failure: &Failure,
        of: u32,
        at: &str,
    ) -> bool {
        let kind = failure.kind;
        let used = self.retries.entry(kind).or_default();
        if *used >= of {
            let why = format!("{} came again after {of} more launches", wire_name(&kind));
            self.decide(attempt, at, Choice::End, why);
            return false;
        }
        *used += 1;
        let retry = *used;
        let why =
            format!("{} comes from outside the variant: {}", wire_name(&kind), failure.summary);
        self.decide(attempt, at, Choice::TryAgain { kind, retry, of }, why);
        true
    }

    /// The phase's failure is its result; what asks for more would fail, too.
    fn limit(
        &mut self,
        attempt: &AttemptOutcome,
        failure: &Failure,
        phase: &Name,
        at: &str,
    ) -> bool {
        let kind = failure.kind;
        self.limit.get_or_insert_with(|| failure.clone());
        let why = format!("what {phase} asks is more than this variant bears: {}", failure.summary);
        self.decide(attempt, at, Choice::Limit { phase: phase.clone(), kind }, why);
        self.left.retain(|left| left != phase);
        // A level of a search is no phase of the sweep: nothing else asks for more of it.
        let found = |name: &Name| self.phases.iter().find(|phase| phase.name == *name);
        let above =
            |name: &Name| found(name).zip(found(phase)).is_some_and(|(a, b)| is_above(a, b));
        let (above, left): (Vec<Name>, Vec<Name>) =
            self.left.iter().cloned().partition(|name| above(name));
        self.left = left;
        for skipped in above {
            let why = format!("{skipped} asks for more of the same than {phase}, which failed");
            let choice = Choice::SkipPhase { phase: skipped, limit: phase.clone() };
            self.decide(attempt, at, choice, why);
        }
        if self.left.is_empty() {
            let why = "no phase is left that could go better".to_owned();
            self.decide(attempt, at, Choice::End, why);
            return false;
        }
        let phases = self.left.clone();
        let why = format!("they do not ask for more of the same than {phase}");
        self.decide(attempt, at, Choice::GoOn { phases }, why);
        true
    }

    fn decide(&mut self, attempt: &AttemptOutcome, at: &str, choice: Choice, because: String) {
        let attempt = Some(attempt.attempt);
        self.decisions.push(Decision { at: at.to_owned(), attempt, choice, because });
    }

    /// How the trial ended, by its last attempt. A limit stays a failure, whatever went on after it.
    pub(crate) fn ending(&self, last: Ending) -> Ending {
        match (&self.limit, last) {
            (Some(failure), Ending::Completed) => Ending::EngineFailed { failure: failure.clone() },
            (_, last) => last,
        }
    }
}

/// Asks for as much or more of the same pattern.
fn is_above(phase: &Phase, limit: &Phase) -> bool {
    match (&phase.pattern, &limit.pattern) {
        (Pattern::Closed { think_time, .. }, Pattern::Closed { think_time: of_limit, .. }) => {
            phase.users >= limit.users && think_time <= of_limit
        }
        (
            Pattern::Open(OpenLoop::Rate { rate_per_s, arrivals, .. }),
            Pattern::Open(OpenLoop::Rate {
                rate_per_s: of_limit, arrivals: arrivals_of_limit, ..
            }),
        ) => arrivals == arrivals_of_limit && rate_per_s >= of_limit,
        _ => false,
    }
}

/// Kinds that speak of the machine and not of a variant.
fn is_of_the_machine(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::NoGpu
            | FailureKind::XidOrHwFault
            | FailureKind::DiskFull
            | FailureKind::GpuBusyOrLeaked
            | FailureKind::CudaDriverMismatch
            | FailureKind::ShmOrIpcLimit
    )
}

fn under_load(failure: &Failure) -> bool {
    failure.during.starts_with("phase ")
}

fn is_limit(failure: &Failure) -> bool {
    under_load(failure) && class(failure.kind, true) == Class::Limit
}

/// Why a trial of this variant is not worth its time, by the trials that have ended, in order.
pub(crate) fn skip(
    variant: &Name,
    ended: &[TrialOutcome],
    policy: Policy,
) -> Option<(Choice, String)> {
    let failed = |trial: &TrialOutcome| match &trial.ending {
        // A limit is a result, however often it comes.
        Ending::EngineFailed { failure } if !is_limit(failure) => {
            Some((failure.kind, failure.during.clone()))
        }
        _ => None,
    };
    let skipped = |trial: &&TrialOutcome| !matches!(trial.ending, Ending::Skipped { .. });
    let own: Vec<&TrialOutcome> =
        ended.iter().filter(|trial| trial.trial.variant == *variant).filter(skipped).collect();
    for trial in &own {
        if let Ending::EngineFailed { failure } = &trial.ending
            && failure.retries.is_none()
            && !under_load(failure)
            && class(failure.kind, false) == Class::Permanent
        {
            let because = format!(
                "{} in trial {} cannot change from one launch to the next: {}",
                wire_name(&failure.kind),
                trial.trial,
                failure.summary
            );
            let trials = vec![trial.trial.clone()];
            return Some((Choice::SkipTrial { kind: failure.kind, trials }, because));
        }
    }
    let breaker = usize::try_from(policy.breaker).unwrap_or(usize::MAX);
    if let Some((kind, during, trials)) = equal_in_a_row(&own, breaker, failed) {
        let because = format!(
            "the last {breaker} trials of this variant failed alike: {} while {during}",
            wire_name(&kind)
        );
        return Some((Choice::SkipTrial { kind, trials }, because));
    }
    let all: Vec<&TrialOutcome> = ended.iter().filter(skipped).collect();
    let (kind, _, trials) = equal_in_a_row(&all, breaker, |trial| {
        failed(trial).map(|(kind, _)| (kind, String::new()))
    })?;
    let variants: std::collections::BTreeSet<_> = trials.iter().map(|t| &t.variant).collect();
    let machine = is_of_the_machine(kind) && variants.len() > 1;
    machine.then(|| {
        let because = format!(
            "the last {breaker} trials, of {} variants, all failed with {}: that is the machine",
            variants.len(),
            wire_name(&kind)
        );
        (Choice::SkipTrial { kind, trials: trials.clone() }, because)
    })
}

/// The last `count` trials, if all of them failed in the same way.
fn equal_in_a_row(
    trials: &[&TrialOutcome],
    count: usize,
    failed: impl Fn(&TrialOutcome) -> Option<(FailureKind, String)>,
) -> Option<(FailureKind, String, Vec<TrialId>)> {
    let last = trials.get(trials.len().checked_sub(count)?..)?;
    let (kind, during) = failed(last.first()?)?;
    let alike = |trial: &&TrialOutcome| failed(trial) == Some((kind, during.clone()));
    let ids = last.iter().map(|trial| trial.trial.clone()).collect();
    last.iter().all(alike).then_some((kind, during, ids))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
