//! What loops share, from several threads at once.

use super::*;
use crate::load::scripted::plan_for;
use std::collections::BTreeSet;

const NOW: MonoNs = MonoNs::new(1_000_000_000);

fn joint(loops: usize, most: Option<u32>) -> (Arc<Joint>, mpsc::Receiver<LoadEvent>) {
    let mut plan = plan_for(1);
    (plan.min_requests, plan.max_requests) = (2, most);
    let (notes, events) = mpsc::channel();
    let wakes = (0..loops).map(|_| Stopper::new().unwrap()).collect();
    (Joint::new(Watch::new(&plan, NOW, None), NOW, wakes, notes), events)
}

#[test]
fn each_request_begins_once_and_none_beyond_the_most() {
    let (joint, _events) = joint(4, Some(1000));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let mut part = Part::new(&joint, number);
            std::thread::spawn(move || std::iter::from_fn(|| part.begin(NOW)).collect::<Vec<_>>())
        })
        .collect();
    let begun: Vec<u32> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(begun.len(), 1000);
    assert_eq!(begun.into_iter().collect::<BTreeSet<_>>(), (0..1000).collect());
    assert_eq!(joint.begun(), 1000);
}

#[test]
fn what_one_loop_finds_out_all_act_by() {
    let (joint, _events) = joint(2, None);
    let [mut one, mut other] = [0, 1].map(|number| Part::new(&joint, number));
    for part in [&mut one, &mut other] {
        part.begin(NOW).unwrap();
        part.ended(RequestOutcome::Ok, true, NOW);
    }
    assert_eq!(other.in_flight(), 0);
    assert_eq!(one.judge(NOW, false).end, Some((PhaseEnd::Finished, NOW)));
    assert!(joint.wakes[1].descriptor().read().is_ok(), "the other one is woken");
    let later = NOW.plus(std::time::Duration::from_secs(1));
    assert_eq!(other.judge(later, false).end, Some((PhaseEnd::Finished, NOW)));
    assert_eq!(other.begin(later), None, "nothing begins after the end");
    let stopped = other.judge(later, true);
    assert_eq!(stopped.end, Some((PhaseEnd::Finished, NOW)), "the first reason stays");
    assert_eq!(stopped.abandon.map(|(outcome, _)| outcome), Some(RequestOutcome::Cancelled));
    assert_eq!(one.judge(later, false), stopped);
}

#[test]
fn a_byte_in_any_loop_is_progress() {
    let (joint, _events) = joint(2, None);
    let [mut one, mut other] = [0, 1].map(|number| Part::new(&joint, number));
    one.begin(NOW).unwrap();
    // The plan's stall is 10 s.
    let at = |s: u64| NOW.plus(std::time::Duration::from_secs(s));
    other.got_bytes(at(9));
    assert_eq!(one.judge(at(11), false).end, None);
    assert_eq!(one.next_due(), at(19));
    let order = one.judge(at(19), false);
    assert_eq!(order.end.map(|(end, _)| end), Some(PhaseEnd::Hang));
    assert_eq!(other.judge(at(19), false), order);
}

#[test]
fn the_parent_hears_sums_once_all_loops_have_said_theirs() {
    let (joint, events) = joint(2, None);
    let parts = [0, 1].map(|number| Part::new(&joint, number));
    let tick = |sent| LoadTick { sent, elapsed_ns: sent, ..LoadTick::default() };
    let heard = || -> Vec<u64> {
        let ticks = events.try_iter().map(|event| match event {
            LoadEvent::Tick(tick) => tick.sent,
            other => panic!("{other:?}"),
        });
        ticks.collect()
    };
    parts[0].tick(1, tick(3), NOW);
    assert!(heard().is_empty());
    parts[1].tick(1, tick(4), NOW);
    assert_eq!(heard(), [7]);
    // One is a second behind, the other is through.
    parts[0].tick(3, tick(10), NOW);
    parts[1].tick(u64::MAX, tick(5), NOW);
    assert_eq!(heard(), [15]);
    parts[0].tick(4, tick(11), NOW);
    assert_eq!(heard(), [16]);
    parts[0].tick(u64::MAX, tick(12), NOW);
    assert!(heard().is_empty(), "then it ends");
}

#[test]
fn a_loop_that_panics_or_fails_ends_all() {
    for panics in [true, false] {
        let (joint, _events) = joint(2, None);
        let mut other = Part::new(&joint, 1);
        let part = Part::new(&joint, 0);
        let thread = std::thread::spawn(move || {
            if panics {
                let _part = part;
                panic!("as in a bug");
            }
            part.fail(NOW);
        });
        assert_eq!(thread.join().is_err(), panics);
        let order = other.judge(NOW, false);
        assert_eq!(order.end.map(|(end, _)| end), Some(PhaseEnd::Stopped));
        assert!(order.abandon.is_some());
    }
}
