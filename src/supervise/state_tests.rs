//! The straight line, the first reasons to stop, and random walks that keep the promises.

use super::*;
use crate::seed::{Seed, Stream};

const LIMITS: Limits = Limits {
    launch: Duration::from_secs(1),
    load: Duration::from_secs(60),
    ready: Duration::from_secs(10),
    warmup: Duration::from_secs(60),
    phase: Duration::from_secs(100),
    examine: Duration::from_secs(10),
    stop: Duration::from_secs(15),
    verify: Duration::from_secs(5),
    stall: Duration::from_secs(7),
    phases: 2,
    warm_up: true,
};

fn at(seconds: i64) -> MonoNs {
    MonoNs::new(seconds * 1_000_000_000)
}

#[track_caller]
fn walk(events: &[(i64, Event)]) -> (State, Vec<Action>) {
    let mut attempt = Attempt::begin(at(0), &LIMITS);
    let mut actions = Vec::new();
    for (seconds, event) in events {
        let (next, new) = attempt.on(event.clone(), at(*seconds), &LIMITS);
        attempt = next;
        actions.extend(new);
    }
    (attempt.state, actions)
}

fn done() -> Event {
    Event::LoadDone { end: PhaseEnd::Finished, ok: 1, records: 1 }
}

fn until_loaded() -> Vec<(i64, Event)> {
    vec![
        (0, Event::Launched),
        (5, Event::EndpointAnswered),
        (6, Event::TokenGenerated),
        (7, done()),
    ]
}

#[test]
fn a_trial_that_goes_well_walks_the_straight_line() {
    let mut events = until_loaded();
    events.extend([(8, done()), (9, done()), (10, Event::GuardEnded), (11, Event::PortChecked)]);
    let (state, actions) = walk(&events);
    assert_eq!(state, State::Ended { why: Why::Completed });
    use Action::*;
    assert_eq!(
        actions,
        [
            ProbeEndpoint,
            ProveGeneration,
            StartWarmup,
            StartPhase(0),
            StartPhase(1),
            StopLoad,
            StopEngine,
            CheckPort
        ]
    );
}

#[test]
fn what_the_last_probe_met_is_in_the_verdict() {
    let (state, _) = walk(&[
        (0, Event::Launched),
        (1, Event::ProbeFailed { reason: "503".into() }),
        (61, Event::Tick),
        (62, Event::Examined),
    ]);
    let symptom = Symptom::NotReady { waited: LIMITS.load, last_probe: Some("503".to_owned()) };
    assert_eq!(state, State::Stopping { why: Why::Failed { symptom } });
}

#[test]
fn the_first_reason_is_kept() {
    let mut events = until_loaded();
    events.extend([
        (8, Event::LoadDone { end: PhaseEnd::Hang, ok: 3, records: 9 }),
        (9, Event::LeaderExited { status: ExitStatus::Signal(9) }),
        (9, Event::GuardEnded),
        (9, Event::PortChecked),
    ]);
    let (state, _) = walk(&events);
    let symptom = Symptom::NoProgress { silent: LIMITS.stall };
    assert_eq!(state, State::Ended { why: Why::Failed { symptom } });
}

#[test]
fn an_engine_without_progress_is_looked_at_before_it_is_ended() {
    let hang = || Event::LoadDone { end: PhaseEnd::Hang, ok: 3, records: 9 };
    let mut events = until_loaded();
    events.push((8, hang()));
    let (state, actions) = walk(&events);
    assert!(matches!(state, State::Examining { .. }), "{state:?}");
    assert_eq!(actions.last(), Some(&Action::Examine));
    for next in [(9, Event::Examined), (18, Event::Tick), (9, Event::GuardLost)] {
        let mut events = events.clone();
        events.push(next);
        let (state, actions) = walk(&events);
        let ended = matches!(state, State::Stopping { .. } | State::Verifying { .. });
        assert!(ended && actions.contains(&Action::StopLoad), "{state:?}");
    }
}

#[test]
fn streams_that_end_an_instant_before_the_engine_are_its_end() {
    let mut events = until_loaded();
    let status = ExitStatus::Code(1);
    events.push((8, Event::LoadDone { end: PhaseEnd::Finished, ok: 0, records: 4 }));
    events.push((8, Event::LeaderExited { status }));
    let (state, _) = walk(&events);
    let symptom = Symptom::Exited { status, was_ready: true };
    assert_eq!(state, State::Stopping { why: Why::Failed { symptom } });
}

#[test]
fn an_engine_that_ends_while_it_is_looked_at_was_ready_only_if_it_had_generated() {
    let status = ExitStatus::Code(1);
    let (state, _) = walk(&[
        (0, Event::Launched),
        (1, Event::EndpointAnswered),
        (11, Event::Tick),
        (11, Event::LeaderExited { status }),
    ]);
    let symptom = Symptom::Exited { status, was_ready: false };
    assert_eq!(state, State::Stopping { why: Why::Failed { symptom } });
}

#[test]
fn a_second_cancel_kills() {
    let cancel = || Event::CancelAsked { reason: "Ctrl-C".into() };
    let (_, actions) = walk(&[(0, Event::Launched), (1, cancel()), (2, cancel()), (3, cancel())]);
    use Action::*;
    assert_eq!(actions, [ProbeEndpoint, StopLoad, StopEngine, KillEngine]);
}

#[test]
fn an_engine_that_never_launched_needs_no_stop() {
    let (state, actions) = walk(&[(0, Event::LaunchFailed { error: "no such file".into() })]);
    assert!(matches!(state, State::Ended { why: Why::Failed { .. } }));
    assert_eq!(actions, []);
}

fn any_event(random: &mut Stream) -> Event {
    let ends = [
        PhaseEnd::Finished,
        PhaseEnd::Finished,
        PhaseEnd::Finished,
        PhaseEnd::Hang,
        PhaseEnd::Deadline,
        PhaseEnd::EngineGone,
        PhaseEnd::OnlyFailures,
        PhaseEnd::Stopped,
    ];
    match random.below(25) {
        0 => Event::LaunchFailed { error: String::new() },
        1 => Event::ForeignListener { port: 1 },
        2 => Event::LoadBroken { reason: String::new() },
        3 => Event::LeaderExited { status: ExitStatus::Code(1) },
        4 => Event::GuardEnded,
        5 => Event::GuardLost,
        6 => Event::CancelAsked { reason: String::new() },
        7 => [Event::PortChecked, Event::Examined][random.below(2)].clone(),
        8..10 => Event::Launched,
        10..12 => Event::EndpointAnswered,
        12..14 => Event::TokenGenerated,
        14..18 => {
            let end = ends[random.below(ends.len())];
            Event::LoadDone { end, ok: random.next_u64() % 2, records: 1 }
        }
        18 => Event::ProbeFailed { reason: String::new() },
        19 => Event::GpuTrouble { symptom: Symptom::NoConnections },
        _ => Event::Tick,
    }
}

#[test]
fn random_walks_keep_the_promises() {
    for seed in 0..5_000 {
        let mut random = Seed::new(seed).stream();
        let mut attempt = Attempt::begin(at(0), &LIMITS);
        let (mut now, mut launched, mut stops, mut checks) = (0_i64, false, 0, 0);
        for _ in 0..400 {
            now += i64::try_from(random.below(20_000_000_000)).unwrap();
            let event = any_event(&mut random);
            launched |= event == Event::Launched && attempt.state == State::Launching;
            let (next, actions) = attempt.on(event, MonoNs::new(now), &LIMITS);
            stops += actions.iter().filter(|a| **a == Action::StopEngine).count();
            checks += actions.iter().filter(|a| **a == Action::CheckPort).count();
            attempt = next;
        }
        assert!(matches!(attempt.state, State::Ended { .. }), "seed {seed}: {attempt:?}");
        assert!(stops <= 1, "seed {seed}: stopped {stops} times");
        assert!(!launched || checks == 1, "seed {seed}: launched, but the port was not checked");
    }
}
