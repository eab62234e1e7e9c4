//! Phases of several loops. On a machine with one CPU there is one, and all must hold the same.

use super::*;
use crate::load::message::LoadPattern;
use crate::load::scripted::{HEAD, MS, Peer, Phase, answer, good, run, run_stopped, serve, token};
use crate::run::record::RequestOutcome as Outcome;
use crate::workload::schedule::OpenLoop;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

const LOOPS: u32 = 3;

#[test]
fn all_are_dealt_out_once() {
    for (all, of) in [(1, 1), (7, 1), (7, 3), (8, 2), (3, 3), (1000, 7)] {
        let shares = (0..of).map(|number| Share { number, of });
        let dealt =
            shares.clone().flat_map(|share| (0..share.count(all)).map(move |nth| share.nth(nth)));
        assert_eq!(dealt.collect::<BTreeSet<_>>(), (0..all).collect(), "{all} over {of}");
        assert_eq!(shares.map(|share| share.count(all)).sum::<u32>(), all);
    }
    let offsets = [1, 2, 3, 4, 5];
    let share = |number| Share { number, of: 2 };
    assert_eq!((dealt(&offsets, share(0)), dealt(&offsets, share(1))), (vec![1, 3, 5], vec![2, 4]));
}

/// No more than there are CPUs.
fn expected() -> u32 {
    LOOPS.min(cpus().unwrap())
}

fn users(phase: &Phase) -> BTreeSet<u32> {
    phase.records.iter().map(|record| record.user).collect()
}

#[test]
fn counts_are_exact_whatever_the_loops() {
    for loops in [1, LOOPS] {
        let (port, _) = serve(good);
        let phase = run(port, |plan| {
            (plan.users, plan.loops) = (7, loops);
            (plan.min_requests, plan.max_requests) = (101, Some(101));
        });
        phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 101)]);
        assert_eq!(phase.facts.client.loops, Some(loops.min(expected())));
        assert_eq!(users(&phase), (0..7).collect());
        assert!(phase.facts.full_at.is_some());
        for user in 0..7 {
            let turns = phase.records.iter().filter(|r| r.user == user).map(|r| r.turn);
            let turns: BTreeSet<u32> = turns.collect();
            assert_eq!(turns, (0..u32::try_from(turns.len()).unwrap()).collect(), "user {user}");
        }
    }
}

#[test]
fn minima_hold_for_all_loops_together() {
    let (port, _) = serve(good);
    let phase = run(port, |plan| {
        (plan.users, plan.loops) = (6, LOOPS);
        (plan.min_requests, plan.min_duration_ns) = (40, 150 * MS);
    });
    let count = phase.records.len();
    phase.check(PhaseEnd::Finished, &[(Outcome::Ok, count)]);
    assert!(count >= 40);
    let facts = &phase.facts;
    assert!(facts.stopped_at.since_ns(facts.started) >= 150_000_000);
    assert!(phase.records.iter().all(|record| record.scheduled <= facts.stopped_at));
}

/// The prompts that a server saw, of a schedule of requests a millisecond apart.
fn scheduled(loops: u32) -> (Phase, BTreeSet<String>) {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let kept = Arc::clone(&seen);
    let (port, _) = serve(move |peer: &mut Peer| {
        while let Some(body) = peer.request() {
            kept.lock().unwrap().insert(body["prompt"].as_str().unwrap().to_owned());
            peer.say(&answer());
        }
    });
    let phase = run(port, |plan| {
        (plan.users, plan.loops) = (60, loops);
        plan.pattern = LoadPattern::Open {
            schedule: OpenLoop::Trace {
                offsets: (0..200).map(|n| n * MS).collect(),
                lengths: Vec::new(),
                classes: Vec::new(),
            },
            seed: 1,
            kept: plan.records.with_extension("csv"),
        };
    });
    let seen = seen.lock().unwrap().clone();
    (phase, seen)
}

#[test]
fn a_schedule_is_kept_by_all_loops_together() {
    let (one, asked_by_one) = scheduled(1);
    let (several, asked_by_several) = scheduled(LOOPS);
    assert_eq!(asked_by_one.len(), 200);
    assert_eq!(asked_by_several, asked_by_one, "the same requests, whoever sends them");
    for phase in [one, several] {
        phase.check(PhaseEnd::Finished, &[(Outcome::Ok, 200)]);
        let open = phase.facts.open.unwrap();
        assert_eq!((open.scheduled, open.not_started), (200, 0));
        assert!((open.scheduled_s - 0.199).abs() < 1e-9);
        let started = phase.facts.started;
        let mut due: Vec<(i64, u32)> =
            phase.records.iter().map(|r| (r.scheduled.since_ns(started), r.turn)).collect();
        due.sort_unstable();
        assert_eq!(due, (0..200).map(|n| (i64::from(n) * 1_000_000, n)).collect::<Vec<_>>());
    }
}

#[test]
fn silence_is_a_hang_only_in_all_loops() {
    let (port, _) = serve(Peer::wait_for_close);
    let phase = run(port, |plan| {
        (plan.users, plan.loops) = (6, LOOPS);
        plan.stall_ns = 200 * MS;
    });
    phase.check(PhaseEnd::Hang, &[(Outcome::Stalled, 6)]);

    let (port, _) = serve(|peer| {
        if peer.number == 0 {
            peer.request();
            peer.say(&format!("{HEAD}{}", token(0)));
            peer.wait_for_close();
        }
        good(peer);
    });
    let phase = run(port, |plan| {
        (plan.users, plan.loops) = (LOOPS, LOOPS);
        plan.stall_ns = 300 * MS;
        plan.min_duration_ns = 600 * MS;
        plan.pattern = LoadPattern::Closed { think_time_ns: 5 * MS, ramp_up_ns: 0 };
    });
    assert_eq!(phase.facts.end, PhaseEnd::Finished);
    assert_eq!(phase.outcomes().get(&Outcome::Stalled), Some(&1), "{:?}", phase.outcomes());
}

#[test]
fn nobody_serving_and_a_stop_reach_all_loops() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let phase = run(port, |plan| (plan.users, plan.loops) = (6, LOOPS));
    let count = phase.records.len();
    phase.check(PhaseEnd::EngineGone, &[(Outcome::Refused, count)]);

    let phase = run_stopped(6, |plan| plan.loops = LOOPS);
    phase.check(PhaseEnd::Stopped, &[(Outcome::Cancelled, 6)]);
}

#[test]
fn the_worst_loop_speaks_for_all() {
    let at = |ns| Some(MonoNs::new(ns));
    let part = |full_at, lag, reads| PartFacts {
        users: 3,
        full_at,
        end: Some((PhaseEnd::Finished, MonoNs::new(90))),
        cost: ClientCost {
            read_lag_p99_ns: lag,
            max_turn_gap_ns: lag.unwrap_or(0),
            reads,
            ..ClientCost::default()
        },
        open: None,
        stamped_reads: 0,
        protocol: None,
    };
    let plan = crate::load::scripted::plan_for(1);
    let merge = |parts: &[PartFacts]| merged(&plan, parts, MonoNs::new(0), MonoNs::new(99));
    let facts = merge(&[part(at(5), Some(64), 10), part(at(7), Some(1024), 20)]);
    let client = facts.client;
    assert_eq!((client.read_lag_p99_ns, client.max_turn_gap_ns), (Some(1024), 1024));
    assert_eq!((client.reads, client.loops, facts.full_at), (30, Some(2), at(7)));
    assert_eq!(merge(&[part(at(5), None, 1), part(None, None, 1)]).full_at, None);
}
