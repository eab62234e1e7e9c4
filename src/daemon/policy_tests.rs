//! Each class of failures, and random walks: every trial ends, and no phase is lost.

use super::*;
use crate::seed::Seed;
use crate::units::ClockAnchor;
use std::num::NonZeroU32;
use std::time::Duration;

fn phase(name: &str, users: u32) -> Phase {
    Phase {
        name: Name::new(name).unwrap(),
        users: NonZeroU32::new(users).unwrap(),
        pattern: Pattern::CLOSED,
        min_requests: 1,
        min_duration: Duration::ZERO,
    }
}

fn phases() -> Vec<Phase> {
    vec![phase("a-10", 10), phase("b-100", 100), phase("c-50", 50), phase("d-200", 200)]
}

fn failed(kind: FailureKind, during: &str, retries: Option<u32>) -> Ending {
    let (summary, evidence) = ("it failed".to_owned(), Vec::new());
    let during = during.to_owned();
    Ending::EngineFailed {
        failure: Failure { kind, during, summary, evidence, advice: None, retries },
    }
}

fn attempt(
    number: u32,
    ending: Ending,
    failed_phase: Option<&str>,
    phases: &[&str],
) -> AttemptOutcome {
    let names = |list: &[&str]| list.iter().map(|n| Name::new(n).unwrap()).collect();
    AttemptOutcome {
        failed_phase: failed_phase.and_then(Name::new),
        phases: names(phases),
        ..AttemptOutcome::without_trace(number, ending, ClockAnchor { mono_ns: 0, realtime_ns: 0 })
    }
}

fn left<'c>(course: &'c Course<'_>) -> Vec<&'c str> {
    course.left().iter().map(Name::as_str).collect()
}

#[test]
fn a_limit_skips_what_asks_for_more_and_the_rest_goes_on() {
    let phases = phases();
    let mut course = Course::new(&phases, Policy::default());
    let oom = failed(FailureKind::GpuOomRuntime, "phase b-100", None);
    assert!(course.after(&attempt(1, oom.clone(), Some("b-100"), &["a-10", "b-100"]), "t"));
    assert_eq!(left(&course), ["c-50"], "50 users are not above 100; 200 are");
    assert!(!course.after(&attempt(2, Ending::Completed, None, &["c-50"]), "t"));
    assert_eq!(course.ending(Ending::Completed), oom, "the limit stays the trial's failure");
    let sources: Vec<_> = course.measured.iter().map(|s| (s.phase.as_str(), s.attempt)).collect();
    assert_eq!(sources, [("a-10", 1), ("b-100", 1), ("c-50", 2)]);
    let skipped = |d: &&Decision| matches!(d.choice, Choice::SkipPhase { .. });
    assert_eq!(course.decisions.iter().filter(skipped).count(), 1);
}

#[test]
fn out_of_memory_before_any_phase_is_no_limit() {
    let phases = phases();
    let mut course = Course::new(&phases, Policy::default());
    let oom = failed(FailureKind::GpuOomRuntime, "warming up", None);
    assert!(!course.after(&attempt(1, oom, None, &[]), "t"));
}

#[test]
fn what_passes_is_tried_again_so_often_and_no_more() {
    let phases = phases();
    for (policy, rule, expected) in [
        (Policy::default(), None, 2),
        (Policy { retries: Some(0), ..Policy::default() }, None, 0),
        (Policy { retries: Some(5), ..Policy::default() }, None, 5),
        (Policy::default(), Some(3), 3),
    ] {
        let mut course = Course::new(&phases, policy);
        let taken = failed(FailureKind::PortInUse, "loading", rule);
        let launches =
            (1..100).find(|n| !course.after(&attempt(*n, taken.clone(), None, &[]), "t"));
        assert_eq!(launches, Some(expected + 1));
    }
}

fn trial(block: u32, variant: &str, ending: Ending) -> TrialOutcome {
    TrialOutcome {
        format: 1,
        run: crate::ids::RunId("r".into()),
        trial: TrialId { block, variant: Name::new(variant).unwrap() },
        simulated: true,
        ending,
        attempts: 1,
        beside: Vec::new(),
        phases: Vec::new(),
        decisions: Vec::new(),
        started: String::new(),
        ended: String::new(),
    }
}

#[track_caller]
fn check_skip(ended: &[TrialOutcome], expected: Option<FailureKind>) {
    let got = skip(&Name::new("v").unwrap(), ended, Policy::default());
    let kind = got.map(|(choice, _)| match choice {
        Choice::SkipTrial { kind, .. } => kind,
        other => panic!("{other:?}"),
    });
    assert_eq!(kind, expected);
}

#[test]
fn a_trial_is_skipped_when_the_cause_cannot_change_or_came_too_often() {
    use FailureKind::{BadFlag, CrashSegfault, GpuOomRuntime, PortInUse, XidOrHwFault};
    let bad = |kind, during: &str| failed(kind, during, None);
    check_skip(&[], None);
    check_skip(&[trial(1, "v", bad(BadFlag, "loading"))], Some(BadFlag));
    check_skip(&[trial(1, "other", bad(BadFlag, "loading"))], None);
    check_skip(&[trial(1, "v", bad(PortInUse, "loading"))], None);
    let crash = |block| trial(block, "v", bad(CrashSegfault, "phase a"));
    check_skip(&[crash(1), crash(2)], None);
    check_skip(&[crash(1), crash(2), crash(3)], Some(CrashSegfault));
    check_skip(&[crash(1), trial(2, "v", Ending::Completed), crash(3), crash(4)], None);
    check_skip(
        &[crash(1), crash(2), trial(3, "v", bad(CrashSegfault, "loading"))],
        None, // Not alike.
    );
    let limit = |block| trial(block, "v", bad(GpuOomRuntime, "phase a"));
    check_skip(&[limit(1), limit(2), limit(3), limit(4)], None);
    let fault = |variant| trial(1, variant, bad(XidOrHwFault, "loading"));
    check_skip(&[fault("a"), fault("b"), fault("c")], Some(XidOrHwFault));
    check_skip(&[fault("a"), fault("a"), fault("a")], None);
}

#[test]
fn random_courses_end_and_account_for_every_phase() {
    let kinds = [
        FailureKind::PortInUse,
        FailureKind::GpuOomRuntime,
        FailureKind::WatchdogTimeout,
        FailureKind::CrashSegfault,
        FailureKind::BadFlag,
        FailureKind::KilledByUser,
    ];
    for walk in 0..2_000 {
        let mut random = Seed::new(walk).stream();
        let phases = phases();
        let mut course = Course::new(&phases, Policy::default());
        let mut number = 0;
        loop {
            number += 1;
            assert!(number <= 20, "walk {walk} does not end");
            let offered: Vec<String> = left(&course).iter().map(|n| (*n).to_owned()).collect();
            assert!(!offered.is_empty(), "walk {walk}: an attempt with nothing to do");
            let reached = random.below(offered.len() + 1);
            let all = reached == offered.len();
            let driven: Vec<&str> = offered.iter().take(reached + 1).map(String::as_str).collect();
            let under_load = !all && random.below(2) == 0;
            let kind = kinds[random.below(kinds.len())];
            let (ending, failed_in) = match (all, under_load) {
                (true, _) => (Ending::Completed, None),
                (false, true) => (
                    failed(kind, &format!("phase {}", offered[reached]), None),
                    Some(offered[reached].as_str()),
                ),
                (false, false) => (failed(kind, "loading", None), None),
            };
            let records = if all || under_load { driven } else { Vec::new() };
            if !course.after(&attempt(number, ending, failed_in, &records), "t") {
                break;
            }
        }
        for phase in &phases {
            let measured = course.measured.iter().any(|s| s.phase == phase.name);
            let skipped = course.decisions.iter().any(
                |d| matches!(&d.choice, Choice::SkipPhase { phase: name, .. } if *name == phase.name),
            );
            let is_left = course.left().contains(&phase.name);
            assert!(measured || skipped || is_left, "walk {walk}: {} is lost", phase.name);
            assert!(!(skipped && is_left), "walk {walk}: {} is skipped and left", phase.name);
        }
        let last = course.decisions.last().unwrap();
        assert_eq!(last.choice, Choice::End, "walk {walk}");
    }
}
