//! Open loops against small servers.

use super::*;
use crate::load::driver::Stopper;
use crate::load::message::{LoadPattern, LoadPlan};
use crate::load::scripted::{MS, Peer, answer, good, run, run_until, serve};
use crate::run::phase::PhaseEnd;
use crate::run::record::RequestOutcome as Outcome;
use crate::workload::schedule::OpenLoop;
use std::sync::mpsc;

/// At these milliseconds, at most so many in flight.
fn open(plan: &mut LoadPlan, at_ms: impl Iterator<Item = u64>, most: u32) {
    plan.users = most;
    plan.pattern = LoadPattern::Open {
        schedule: OpenLoop::Trace {
            offsets: at_ms.map(|ms| ms * MS).collect(),
            lengths: Vec::new(),
            classes: Vec::new(),
        },
        seed: 1,
        kept: plan.records.with_extension("csv"),
    };
}

#[test]
fn a_frozen_server_shows_in_every_request_that_was_due() {
    // Frozen from 200 to 700 ms after the first request, as by a stopped process.
    let began = std::sync::OnceLock::new();
    let clock = || crate::clock::now();
    let (port, _) = serve(move |peer: &mut Peer| {
        while peer.request().is_some() {
            let since = clock().since(*began.get_or_init(clock));
            let frozen = Duration::from_millis(200)..Duration::from_millis(700);
            if frozen.contains(&since) {
                std::thread::sleep(frozen.end.saturating_sub(since));
            }
            peer.say(&answer());
        }
    });
    let mut kept = std::path::PathBuf::new();
    let phase = run(port, |plan| {
        open(plan, (0..100).map(|n| n * 10), 200);
        let LoadPattern::Open { kept: path, .. } = &plan.pattern else { return };
        kept.clone_from(path);
    });
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 100)]);
    let facts = phase.facts.open.unwrap();
    assert_eq!((facts.scheduled, facts.not_started, facts.held_back), (100, 0, 0));
    for record in &phase.records {
        let due_ms = record.scheduled.since(phase.facts.started).as_millis();
        assert_eq!(due_ms, u128::from(record.index) * 10, "the schedule is absolute");
        let latency = record.end.since(record.scheduled);
        if (250..650).contains(&due_ms) {
            // To the end of the freeze, less what the first request took to arrive.
            let least = Duration::from_millis(u64::try_from(690 - due_ms).unwrap_or(0));
            assert!(latency >= least, "due at {due_ms} ms, answered after {latency:?}");
        }
    }
}

#[test]
fn a_full_house_starts_late_and_keeps_the_time_that_was_due() {
    let (port, accepted) = serve(|peer| {
        while peer.request().is_some() {
            std::thread::sleep(Duration::from_millis(40));
            peer.say(&answer());
        }
    });
    let phase = run(port, |plan| open(plan, 0..20, 2));
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 20)]);
    let facts = phase.facts.open.unwrap();
    assert!(facts.held_back > 0 && facts.late >= 10, "{facts:?}");
    assert_eq!(phase.facts.users, 2);
    assert_eq!(accepted.load(std::sync::atomic::Ordering::SeqCst), 2, "connections are kept");
    let last = phase.records.last().unwrap();
    let waited = last.sent.unwrap().since(last.scheduled);
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
}

#[test]
fn what_was_never_started_is_counted() {
    let (send, stoppers) = mpsc::channel::<Stopper>();
    let stoppers = std::sync::Mutex::new(stoppers);
    let (port, _) = serve(move |peer: &mut Peer| {
        if peer.request().is_some() {
            stoppers.lock().unwrap().recv().unwrap().stop();
            peer.wait_for_close();
        }
    });
    let phase = run_until(
        port,
        |plan| open(plan, [0, 3_600_000, 3_600_001].into_iter(), 8),
        |stopper| send.send(stopper).unwrap(),
    );
    phase.check(PhaseEnd::Stopped, &[(Outcome::Cancelled, 1)]);
    assert_eq!(phase.facts.open.unwrap().not_started, 2);
}

#[test]
fn users_ramp_up_one_after_another() {
    let (port, _) = serve(good);
    let phase = run(port, |plan| {
        (plan.users, plan.min_requests) = (4, 4);
        plan.pattern =
            LoadPattern::Closed { think_time_ns: 3600 * 1000 * MS, ramp_up_ns: 200 * MS };
    });
    let due: Vec<u128> = phase
        .records
        .iter()
        .map(|record| record.scheduled.since(phase.facts.started).as_millis())
        .collect();
    assert_eq!(due, [0, 50, 100, 150]);
}
