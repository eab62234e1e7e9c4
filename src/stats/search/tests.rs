//! Searches on engines whose capacity is known.

use super::*;
use crate::ids::Name;
use crate::run::phase::PhaseEnd;
use crate::run::search::level_name;
use crate::seed::Seed;
use proptest::prelude::*;

fn search() -> Search {
    Search {
        points: vec![200, 300, 500, 750, 1000, 1500, 2000],
        slo: Slo { ttft_ms: Some(1000.0), tpot_ms: Some(50.0), e2el_ms: None },
        error_budget: 0.01,
        tolerance: 0.05,
        repeats: 2,
        max_runs: 40,
    }
}

/// A run of `n` requests of which `over` were too late for their first token.
fn run(users: u32, n: u64, over: u64, tokens_per_s: f64) -> SearchRun {
    SearchRun {
        users,
        phase: level_name(&Name::new("s").unwrap(), users, 1).unwrap(),
        end: PhaseEnd::Finished,
        sent: n,
        failed: 0,
        over_ttft: over,
        over_tpot: 0,
        ttft_p99_ms: None,
        tpot_p99_ms: None,
        output_tokens_per_s: Some(tokens_per_s),
    }
}

/// An engine that bears `capacity` users, and whose throughput bends at half of them.
fn engine(capacity: u32) -> impl Fn(u32) -> SearchRun {
    move |users| {
        let n = 1000 + u64::from(users);
        let over = if users <= capacity { 0 } else { n / 2 };
        let bend = f64::from(capacity.max(2)) / 2.0;
        let rate = 100.0 * f64::from(users) / (1.0 + (f64::from(users) / bend).powi(4)).powf(0.25);
        run(users, n, over, rate)
    }
}

fn drive(search: &Search, engine: impl Fn(u32) -> SearchRun) -> (Vec<SearchRun>, SearchEnd) {
    let mut runs = Vec::new();
    loop {
        match next(search, &runs) {
            Next::Run { users } => runs.push(engine(users)),
            Next::End(end) => return (runs, end),
        }
    }
}

#[test]
fn the_points_come_first_and_then_the_edge() {
    let (runs, end) = drive(&search(), engine(620));
    let users: Vec<u32> = runs.iter().map(|run| run.users).collect();
    assert_eq!(users[..6], [200, 300, 500, 750, 612, 677]);
    assert_eq!(end, SearchEnd::Found);
    let edge = edge(&search(), &runs);
    let (met, missed) = (edge.met.unwrap(), edge.missed.unwrap());
    assert!(met <= 620 && 620 < missed && f64::from(missed) <= 1.05 * f64::from(met) + 1.0);
    for at in [met, missed] {
        assert_eq!(users.iter().filter(|users| **users == at).count(), 2, "{at} is run again");
    }
}

#[test]
fn what_lies_outside_the_points_is_said() {
    let (runs, end) = drive(&search(), engine(5000));
    assert_eq!(end, SearchEnd::AllMet);
    assert_eq!(edge(&search(), &runs).met, Some(2000));
    let (runs, end) = drive(&search(), engine(0));
    assert_eq!((end, edge(&search(), &runs).met), (SearchEnd::NoneMet, None));
    let (runs, end) = drive(&search(), engine(7));
    assert_eq!((end, edge(&search(), &runs).met), (SearchEnd::Found, Some(7)));
}

#[test]
fn a_level_that_cannot_be_told_is_run_again_and_then_not_met() {
    let unsure =
        |users: u32| if users == 500 { run(500, 400, 3, 1.0) } else { engine(9999)(users) };
    let (runs, end) = drive(&search(), unsure);
    assert_eq!(runs.iter().filter(|run| run.users == 500).count(), 2);
    assert_eq!((end, edge(&search(), &runs).missed), (SearchEnd::Found, Some(500)));
    // With more requests together it can be told.
    let barely = |users: u32| if users == 500 { run(500, 400, 1, 1.0) } else { engine(600)(users) };
    let (runs, _) = drive(&search(), barely);
    assert!(edge(&search(), &runs).met.unwrap() > 500, "2 of 800 is met, 1 of 400 was not");
}

#[test]
fn errors_beyond_their_budget_are_a_miss() {
    let failing = |users: u32| {
        let mut run = engine(9999)(users);
        run.failed = if users >= 750 { run.sent / 50 } else { 0 };
        run
    };
    let free = Search { slo: Slo::default(), ..search() };
    let (runs, _) = drive(&free, failing);
    let edge = edge(&free, &runs);
    assert!(edge.met.unwrap() < 750 && edge.missed.unwrap() <= 750, "{edge:?}");
}

#[test]
fn the_knee_is_where_throughput_pays_most() {
    let (runs, _) = drive(&search(), engine(1600));
    let knee = edge(&search(), &runs).knee.unwrap();
    // It bends at 800; X^2 / N is largest there.
    assert!((700..=1000).contains(&knee), "{knee}");
    // Below all points it is still looked for.
    let (runs, _) = drive(&search(), engine(240));
    assert!(edge(&search(), &runs).knee.unwrap() <= 200);
}

proptest! {
    /// Whatever the engine does, a search ends, and never claims what it did not see.
    #[test]
    fn every_search_ends(capacity in 0..3000_u32, noise in 0..u64::MAX, max_runs in 1..40_u32) {
        let search = Search { max_runs, ..search() };
        let sure = engine(capacity);
        let (runs, end) = drive(&search, |users| {
            let mut run = sure(users);
            let draw = Seed::new(noise).nth(users.into()).stream().unit();
            // Near the capacity some runs go either way.
            if f64::from(users) > 0.8 * f64::from(capacity) && draw < 0.3 {
                run.over_ttft = run.sent / 80;
            }
            run
        });
        prop_assert!(!runs.is_empty() && runs.len() <= usize::try_from(max_runs).unwrap());
        let edge = edge(&search, &runs);
        if let (Some(met), Some(missed)) = (edge.met, edge.missed) {
            prop_assert!(met < missed);
            if end == SearchEnd::Found {
                prop_assert!(f64::from(missed - met) <= (0.05 * f64::from(met)).max(1.0));
            }
        }
        prop_assert!(edge.met.is_none_or(|met| met <= capacity.max(1)));
    }
}
